// Compiles src/ with solc from npm and writes generated/<Contract>.json. `node build.mjs DIRECTORY` writes there instead,
// which is how a test compares what is committed with a fresh compilation. The same input gives the same bytes.
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import solc from "solc";

const here = path.dirname(fileURLToPath(import.meta.url));
const out = path.resolve(process.argv[2] ?? path.join(here, "generated"));
const contracts = ["ModelLicense", "PeerRegistry", "SegmentTree", "Settlement", "TestToken"];

const read = (name) => fs.readFileSync(path.join(here, name.startsWith("@") ? "node_modules" : ".", name), "utf8");
const input = {
  language: "Solidity",
  sources: Object.fromEntries(contracts.map((name) => [`src/${name}.sol`, { content: read(`src/${name}.sol`) }])),
  settings: {
    evmVersion: "paris",
    optimizer: { enabled: true, runs: 1000 },
    metadata: { bytecodeHash: "none", appendCBOR: false },
    outputSelection: { "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object", "evm.deployedBytecode.immutableReferences"] } },
  },
};
const output = JSON.parse(solc.compile(JSON.stringify(input), { import: (name) => ({ contents: read(name) }) }));
// Warnings in our own sources count as errors. "paris": the newest rules that nearly all chains have (no PUSH0, no transient storage).
const ours = (output.errors ?? []).filter((m) => m.severity === "error" || m.sourceLocation?.file.startsWith("src/"));
for (const message of ours) console.error(message.formattedMessage);
if (ours.length) process.exit(1);

fs.mkdirSync(out, { recursive: true });
for (const name of contracts) {
  const { abi, evm } = output.contracts[`src/${name}.sol`][name];
  const size = evm.deployedBytecode.object.length / 2;
  if (size > 24576) throw new Error(`${name} has ${size} bytes of code; the limit is 24576`);
  // Where the code on chain holds values of its own deployment: a comparison has to leave them out.
  const immutables = Object.values(evm.deployedBytecode.immutableReferences ?? {}).flat();
  const artifact = {
    contract: name,
    compiler: solc.version(),
    abi,
    bytecode: `0x${evm.bytecode.object}`,
    runtime: `0x${evm.deployedBytecode.object}`,
    immutables: immutables.map(({ start, length }) => [start, length]).sort((a, b) => a[0] - b[0]),
  };
  fs.writeFileSync(path.join(out, `${name}.json`), `${JSON.stringify(artifact, null, 1)}\n`);
  console.log(`${name}: ${size} bytes`);
}
