// Makes unixfs.json with the IPFS project's JavaScript importer: CIDv1, sha2-256, raw leaves, balanced layout.
//   mkdir /tmp/vectors && cd /tmp/vectors && npm i --ignore-scripts ipfs-unixfs-importer@17.1.1 blockstore-core@7.0.1
//   cd - && NODE_PATH=/tmp/vectors/node_modules node tests/vectors/make_unixfs.mjs > tests/vectors/unixfs.json
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const at = (file) => import(pathToFileURL(`${process.env.NODE_PATH}/${file}`));
const version = (name) => JSON.parse(readFileSync(`${process.env.NODE_PATH}/${name}/package.json`)).version;
const { importer } = await at("ipfs-unixfs-importer/dist/src/index.js");
const { fixedSize } = await at("ipfs-unixfs-importer/dist/src/chunker/index.js");
const { balanced } = await at("ipfs-unixfs-importer/dist/src/layout/index.js");
const { MemoryBlockstore } = await at("blockstore-core/dist/src/index.js");

// Content of a size: sha256("unixfs" ‖ counter as 4 bytes, big-endian), one after the other, cut.
const content = (size) => {
  const out = Buffer.alloc(size);
  for (let i = 0; i * 32 < size; i++) {
    const counter = Buffer.alloc(4);
    counter.writeUInt32BE(i);
    createHash("sha256").update("unixfs").update(counter).digest().copy(out, i * 32);
  }
  return out;
};

const add = async (entries, chunk, width) => {
  const store = new MemoryBlockstore();
  const options = {
    cidVersion: 1, rawLeaves: true, reduceSingleLeafToSelf: true, shardSplitThresholdBytes: 1 << 30,
    chunker: fixedSize({ chunkSize: chunk }), layout: balanced({ maxChildrenPerNode: width }),
  };
  let last;
  for await (const entry of importer(entries, store, options)) last = entry;
  let blocks = 0;
  for await (const _ of store.getAll()) blocks++;
  return { cid: last.cid.toString(), blocks };
};

const MIB = 1 << 20;
const files = [];
const sizes = [
  ...[0, 1, 255, MIB - 1, MIB, MIB + 1, 2 * MIB + MIB / 2].map((size) => [size, MIB, 1024]),
  ...[1023, 1024, 1025, 2048, 2049].map((leaves) => [16 * leaves, 16, 1024]),
  [16 * 1030 + 5, 16, 1024],
  ...[1, 2, 3, 4, 8, 9, 10, 27, 28, 29, 81, 82].map((leaves) => [4 * leaves, 4, 3]),
  [4 * 10 - 1, 4, 3],
  ...[174, 175, 349].map((leaves) => [8 * leaves, 8, 174]),
];
for (const [size, chunk, width] of sizes) {
  files.push({ size, chunk, width, ...(await add([{ path: "f", content: content(size) }], chunk, width)) });
}

const directories = [];
const trees = [
  { "f": 5 },
  { "manifest.json": 90, "momentum.safetensors": 3000, "parameters.safetensors": 3001 },
  { "b": 1, "a": 2, "Z": 3, "é": 4, "a.txt": 5, "a-": 0, "ａ": 6, "😀": 7 },
  { "x/one": 10, "x/two": 2000, "y/z/deep": 33, "top": 1 },
  Object.fromEntries([...Array(300)].map((_, i) => [`file-${i}.txt`, i])),
];
for (const tree of trees) {
  const entries = Object.entries(tree).map(([path, size]) => ({ path: `root/${path}`, content: content(size) }));
  directories.push({ tree, chunk: 1024, width: 1024, ...(await add(entries, 1024, 1024)) });
}

const made_with = { "ipfs-unixfs-importer": version("ipfs-unixfs-importer"), "blockstore-core": version("blockstore-core") };
console.log(JSON.stringify({ made_with, files, directories }, null, 1));
