// Reads a file with Helia, the IPFS implementation in JavaScript: node helia.mjs CID http://HOST:PORT | /ip4/…/p2p/… | FILE.car
// Stands beside its node_modules when it runs. Prints one JSON line: bytes, seconds (of reading alone) and sha-256.
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { car } from "@helia/car";
import { fallbackRouter } from "@helia/fallback-router";
import { withHTTP } from "@helia/http";
import { unixfs } from "@helia/unixfs";
import { CarReader } from "@ipld/car";
import { multiaddr } from "@multiformats/multiaddr";
import { createHelia, createHeliaLight } from "helia";
import { CID } from "multiformats/cid";

const [cid, source] = process.argv.slice(2);
const nobody = { delegatedRouters: [], recursiveGateways: [] };
let helia;
if (source.startsWith("http")) {
  const node = createHeliaLight();
  node.addRouter(Object.assign(fallbackRouter({ gateways: [source] }), { capabilities: () => [] })); // alone it is never asked
  helia = await withHTTP(node, { ...nobody, allowInsecure: true, allowLocal: true }).start();
} else if (source.startsWith("/ip")) {
  helia = await createHelia({ http: nobody }).start();
  await helia.libp2p.dial(multiaddr(source));
} else {
  helia = await createHeliaLight().start();
  await car(helia).import(await CarReader.fromIterable(createReadStream(source)));
}
const hash = createHash("sha256");
let bytes = 0;
const begun = performance.now();
for await (const piece of unixfs(helia).cat(CID.parse(cid), { signal: AbortSignal.timeout(100_000) })) {
  hash.update(piece);
  bytes += piece.length;
}
const seconds = (performance.now() - begun) / 1000;
console.log(JSON.stringify({ bytes, seconds, sha256: hash.digest("hex") }));
process.exit(0);
