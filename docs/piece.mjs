// The piece commitment of each file, as deals on Filecoin name it, its newer form, and the padded size: docs/filecoin.md.
import { createReadStream } from 'node:fs'
import { create } from 'fr32-sha2-256-trunc254-padded-binary-tree-multihash'
import { Piece } from '@web3-storage/data-segment'
import { decode } from 'multiformats/hashes/digest'

for (const file of process.argv.slice(2)) {
  const hasher = create()
  for await (const bytes of createReadStream(file)) hasher.write(bytes)
  const digest = new Uint8Array(hasher.multihashByteLength())
  hasher.digestInto(digest, 0, true)
  const piece = Piece.fromDigest(decode(digest))
  console.log(file, piece.toInfo().link.toString(), piece.link.toString(), Number(piece.size))
}
