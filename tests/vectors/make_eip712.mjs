// Makes eip712.json with ethers, from types written here by hand after protocol §2.2 (not read from our code).
//   mkdir /tmp/vectors && cd /tmp/vectors && npm i --ignore-scripts ethers@6.17.0
//   NODE_PATH=/tmp/vectors/node_modules node tests/vectors/make_eip712.mjs > tests/vectors/eip712.json
import { createRequire } from "node:module";
const { ethers } = createRequire(process.env.NODE_PATH + "/")("ethers");

const round = "bytes32 runId,uint64 epoch,uint32 attempt,bytes32 prevCertificate";
const certificate =
  "uint8 kind,bytes32 prevCertificate,bytes32 prevRoot,bytes32 nextRoot,bytes32 contributorsRoot,uint32 numContributors," +
  "uint64 units,uint64 cumulativeUnits,bytes32 electorate,bytes32 body";
const types = {
  RunBinding: "bytes32 runId,uint256 chainId,address settlement,address[] founders,string[] bootstrap",
  Contribution:
    "bytes32 runId,uint64 epoch,address peer,bytes32 prevCertificate,bytes32 previous,uint64 firstUnit,uint32 units," +
    "uint64 beaconBlock,bytes32 deviceClass,bytes32 mergesHash,bytes32 stateBefore,bytes32 stateAfter,bytes32 partsRoot," +
    "uint32 flags",
  RoundCall: round + ",bytes32 reducersHash,uint64 contributeBy,uint64 setBy,uint64 averageBy,uint64 voteBy",
  ReducerReport: round + ",bytes32 completeHash",
  RoundSet: round + ",bytes32 contributorsRoot,uint32 numContributors,bytes32 reducersHash,bytes32 proposal,uint32 validAttempt",
  Average: round + ",bytes32 roundSet,uint32 part,uint32 length,bytes32 digest",
  RoundCertificate: "bytes32 runId,uint64 epoch,uint32 attempt," + certificate,
  CertificateId: "bytes32 runId,uint64 epoch," + certificate,
  RoundVote: round + ",bytes32 id",
  RoundVoid: round,
  ContributionReceipt: "bytes32 runId,uint64 epoch,address peer,uint32 units,bytes32 contribution,bytes32 certificate",
  StorageReceipt: "bytes32 runId,uint64 epoch,address peer,bytes32 certificate,bytes32 held,bytes32 proof",
  Progress: "bytes32 runId,uint64 epoch,bytes32 prevCertificate,uint32 units,uint64 sequence,uint32 flags",
  Verdict: "bytes32 runId,uint64 epoch,address peer,bytes32 contribution,uint8 outcome,bytes32 evidence",
  PeerBinding: "address wallet,address peer,bytes32 netId,uint64 deadline",
};
const domains = [
  { name: "Sparehive", version: "1", chainId: "0", verifyingContract: ethers.ZeroAddress },
  { name: "Sparehive", version: "1", chainId: "31337", verifyingContract: "0x5fbdb2315678afecb367f032d93f642f64180aa3" },
  { name: "Sparehive", version: "1", chainId: (2n ** 256n - 1n).toString(), verifyingContract: "0x" + "ff".repeat(20) },
];

// Values that differ from field to field (so that two swapped fields show), once zero, once the largest of the type.
const seeded = (kind, label, size) => ethers.dataSlice(ethers.id(kind + "." + label), 0, size);
function value(kind, type, label, extreme) {
  if (type === "address[]") return extreme === "zero" ? [] : ["a", "b", "c"].map((x) => seeded(kind, label + x, 20));
  if (type === "string[]") return extreme === "zero" ? [] : ["/ip4/127.0.0.1/tcp/4001/p2p/Qm", "", "ünïcode/☃"];
  const size = type === "bytes32" ? 32 : type === "address" ? 20 : Number(type.slice(4)) / 8;
  const bytes = extreme === "zero" ? "0x" + "00".repeat(size) : extreme === "full" ? "0x" + "ff".repeat(size) : seeded(kind, label, size);
  return type.startsWith("uint") ? BigInt(bytes).toString() : bytes;
}

const vectors = [];
for (const [kind, members] of Object.entries(types)) {
  const fields = members.split(",").map((member) => { const [type, name] = member.split(" "); return { type, name }; });
  ["zero", "full", "seeded"].forEach((extreme, i) => {
    const values = Object.fromEntries(fields.map(({ type, name }) => [name, value(kind, type, name, extreme)]));
    const key = ethers.id("sparehive test key " + i); // of no use to anybody
    const digest = ethers.TypedDataEncoder.hash(domains[i], { [kind]: fields }, values);
    vectors.push({
      kind,
      fields: fields.map(({ type, name }) => [type, name]),
      domain: domains[i],
      values,
      hash: ethers.TypedDataEncoder.hashStruct(kind, { [kind]: fields }, values),
      digest,
      key,
      account: ethers.computeAddress(key).toLowerCase(),
      signature: new ethers.SigningKey(key).sign(digest).serialized,
    });
  });
}
console.log(JSON.stringify({ maker: "ethers " + ethers.version, vectors }, null, 1));
