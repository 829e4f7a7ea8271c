#!/usr/bin/env node
// What forge calls instead of a native solc: answers --version and --standard-json with the wasm compiler from npm.
import fs from "node:fs";
import path from "node:path";
import solc from "solc";

const options = process.argv.slice(2);
const valuesOf = (name) => options.flatMap((option, i) => (option === name ? [options[i + 1]] : []));

if (options.includes("--version")) {
  console.log(`solc, the solidity compiler commandline interface\nVersion: ${solc.version()}`);
} else if (options.includes("--standard-json")) {
  const roots = [...valuesOf("--base-path"), ...valuesOf("--include-path"), "."];
  const read = (name) => {
    const found = roots.map((root) => path.resolve(root, name)).find((file) => fs.existsSync(file));
    return found ? { contents: fs.readFileSync(found, "utf8") } : { error: `${name} not found` };
  };
  fs.writeSync(1, solc.compile(fs.readFileSync(0, "utf8"), { import: read }));
} else {
  console.error(`solc.mjs: cannot ${options.join(" ")}; only --version and --standard-json`);
  process.exitCode = 1;
}
