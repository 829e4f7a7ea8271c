// Makes segments.json with node's own sha256, by the recursive definition of RFC 9162, section 2.1 (not by levels, as our code does).
//   node tests/vectors/make_segments.mjs > tests/vectors/segments.json
// Content is byte number i = i * 7 + (i >> 10) modulo 251, so that no two segments of a vector are alike.
import { createHash } from "node:crypto";

const sha = (...parts) => { const h = createHash("sha256"); for (const p of parts) h.update(p); return h.digest(); };
const content = (size) => Uint8Array.from({ length: size }, (_, i) => (i * 7 + (i >> 10)) % 251);
const segments = (data) => Array.from({ length: Math.ceil(data.length / 1024) }, (_, i) => data.subarray(1024 * i, 1024 * (i + 1)));
const split = (n) => { let k = 1; while (2 * k < n) k *= 2; return k; }; // the largest power of two below n
// MTH of its section 2.1.1 and PATH of 2.1.3.1
const head = (d) => d.length === 1 ? sha(Buffer.of(0), d[0]) : sha(Buffer.of(1), head(d.slice(0, split(d.length))), head(d.slice(split(d.length))));
const path = (m, d) => {
  if (d.length === 1) return [];
  const k = split(d.length);
  return m < k ? [...path(m, d.slice(0, k)), head(d.slice(k))] : [...path(m - k, d.slice(k)), head(d.slice(0, k))];
};
const root = (data) => { const size = Buffer.alloc(8); size.writeBigUInt64BE(BigInt(data.length)); return sha(Buffer.of(2), size, head(segments(data))); };
const hex = (bytes) => "0x" + Buffer.from(bytes).toString("hex");

const vectors = [];
for (const size of [1, 1023, 1024, 1025, 2048, 2049, 3072, 4096, 5000, 7 * 1024, 8 * 1024 + 1, 17 * 1024, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 2570 * 1024 + 5]) {
  const data = content(size), own = segments(data), last = own.length - 1;
  const shown = [...new Set([0, 1, last >> 1, 1023, 1024, last - 1, last])].filter((i) => i >= 0 && i <= last).sort((a, b) => a - b);
  vectors.push({ size, root: hex(root(data)), paths: shown.map((index) => ({ index, path: path(index, own).map(hex) })) });
}
console.log(JSON.stringify({ maker: "node:crypto, RFC 9162", vectors }, null, 1));
