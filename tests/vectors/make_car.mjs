// Makes car.json with the IPFS project's JavaScript CAR writer: a tree of the UnixFS vectors' content, blocks depth first.
//   mkdir /tmp/vectors && cd /tmp/vectors && npm i --ignore-scripts ipfs-unixfs-importer@17.1.1 blockstore-core@6.1.3 \
//     @ipld/car@5.4.7 @ipld/dag-pb@4.2.0
//   cd - && NODE_PATH=/tmp/vectors/node_modules node tests/vectors/make_car.mjs > tests/vectors/car.json
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const at = (file) => import(pathToFileURL(`${process.env.NODE_PATH}/${file}`));
const version = (name) => JSON.parse(readFileSync(`${process.env.NODE_PATH}/${name}/package.json`)).version;
const { importer } = await at("ipfs-unixfs-importer/dist/src/index.js");
const { fixedSize } = await at("ipfs-unixfs-importer/dist/src/chunker/index.js");
const { balanced } = await at("ipfs-unixfs-importer/dist/src/layout/index.js");
const { MemoryBlockstore } = await at("blockstore-core/dist/src/index.js");
const { CarWriter } = await at("@ipld/car/src/index.js");
const pb = await at("@ipld/dag-pb/src/index.js");

const content = (size) => {
  const out = Buffer.alloc(size);
  for (let i = 0; i * 32 < size; i++) {
    const counter = Buffer.alloc(4);
    counter.writeUInt32BE(i);
    createHash("sha256").update("unixfs").update(counter).digest().copy(out, i * 32);
  }
  return out;
};
const bytes = async (store, cid) => {
  const parts = [];
  for await (const part of store.get(cid)) parts.push(part);
  return Buffer.concat(parts);
};

const tree = { "one.txt": 40, "folder/two": 2500, "folder/deeper/empty": 0 };
const store = new MemoryBlockstore();
const entries = Object.entries(tree).map(([path, size]) => ({ path: `root/${path}`, content: content(size) }));
const options = {
  cidVersion: 1, rawLeaves: true, reduceSingleLeafToSelf: true, shardSplitThresholdBytes: 1 << 30,
  chunker: fixedSize({ chunkSize: 1024 }), layout: balanced({ maxChildrenPerNode: 1024 }),
};
let root;
for await (const entry of importer(entries, store, options)) root = entry.cid;

const { writer, out } = CarWriter.create([root]);
const made = (async () => { const parts = []; for await (const part of out) parts.push(part); return Buffer.concat(parts); })();
const put = async (cid) => {
  const data = await bytes(store, cid);
  await writer.put({ cid, bytes: data });
  if (cid.code === pb.code) for (const link of pb.decode(data).Links) await put(link.Hash);
};
await put(root);
await writer.close();
const made_with = Object.fromEntries(["ipfs-unixfs-importer", "blockstore-core", "@ipld/car", "@ipld/dag-pb"].map((name) => [name, version(name)]));
console.log(JSON.stringify({ made_with, tree, chunk: 1024, cid: root.toString(), car: (await made).toString("base64") }, null, 1));
