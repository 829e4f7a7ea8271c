// Makes merkle.json with merkletreejs (positional: nothing sorted) over leaves encoded by ethers.
//   mkdir /tmp/vectors && cd /tmp/vectors && npm i --ignore-scripts ethers@6.17.0 merkletreejs@0.6.0
//   NODE_PATH=/tmp/vectors/node_modules node tests/vectors/make_merkle.mjs > tests/vectors/merkle.json
import { createRequire } from "node:module";
const require = createRequire(process.env.NODE_PATH + "/");
const { ethers } = require("ethers");
const { MerkleTree } = require("merkletreejs");

// Kinds and types by hand after docs/decisions/0002.
const kinds = {
  certificate: [1, ["uint64", "bytes32", "bytes32"]],
  receipt: [2, ["address", "uint64", "uint32", "uint64", "uint64", "bytes32", "bytes32"]],
  payout: [3, ["address", "uint64", "uint128", "uint128", "uint128", "uint128"]],
  contributor: [4, ["address", "bytes32", "uint32", "uint32"]],
  part: [5, ["uint32", "uint32", "bytes32", "uint64"]],
};
const keccak = (data) => Buffer.from(ethers.getBytes(ethers.keccak256(data)));
const seeded = (text, type, full) => {
  const size = type === "bytes32" ? 32 : type === "address" ? 20 : Number(type.slice(4)) / 8;
  const bytes = full ? "0x" + "ff".repeat(size) : ethers.dataSlice(ethers.id(text), 0, size);
  return type.startsWith("uint") ? BigInt(bytes).toString() : bytes;
};
const leafOf = ([kind, types], values) =>
  keccak(keccak(ethers.AbiCoder.defaultAbiCoder().encode(["uint8", ...types], [kind, ...values])));

// The bits of a squared norm as fp64: parts have values of their own, because most bits are no finite positive number.
const bits = (norm) => { const view = new DataView(new ArrayBuffer(8)); view.setFloat64(0, norm); return view.getBigUint64(0).toString(); };

const leaves = [];
for (const [name, [kind, types]] of Object.entries(kinds)) {
  for (const full of [false, true]) {
    const values =
      name === "part"
        ? ["0", full ? "4294967295" : "70000", ethers.id("part"), bits(full ? Number.MAX_VALUE : 0.1)]
        : types.map((type, i) => seeded(name + i, type, full));
    leaves.push({ name, kind, types, values, leaf: ethers.hexlify(leafOf([kind, types], values)) });
  }
}

const trees = [];
for (const count of [1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 33]) {
  const own = Array.from({ length: count }, (_, i) => keccak(ethers.toUtf8Bytes("leaf " + i)));
  const size = 2 ** Math.ceil(Math.log2(count));
  const padded = [...own, ...Array.from({ length: size - count }, () => Buffer.alloc(32))];
  const tree = new MerkleTree(padded, keccak, { sort: false });
  trees.push({
    count,
    leaves: own.map((x) => ethers.hexlify(x)),
    root: tree.getHexRoot(),
    proofs: own.map((leaf, i) => tree.getHexProof(leaf, i)),
  });
}
// The packed hashes and the draw of swarm.records.commitments.
const accounts = [1, 2, 3].map((i) => ethers.toBeHex(BigInt(ethers.id("a")) >> BigInt(96 + i), 20)).sort();
const hashes = ["x", "y", "z"].map(ethers.id).sort();
const pack = ethers.solidityPackedKeccak256;
const packed = {
  accounts,
  hashes,
  accounts_hash: pack(["bytes"], [ethers.concat(accounts)]),
  hashes_hash: pack(["bytes"], [ethers.concat(hashes)]),
  ranks: accounts.map((a) => pack(["bytes32", "uint64", "uint32", "address"], [hashes[0], 7, 2, a])),
};
const version = JSON.parse(require("fs").readFileSync(process.env.NODE_PATH + "/merkletreejs/package.json")).version;
console.log(JSON.stringify({ maker: `merkletreejs ${version}, ethers ${ethers.version}`, leaves, trees, packed }, null, 1));
