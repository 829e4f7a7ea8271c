// Checks published tables against a chain with other people's tools alone: ethers and merkletreejs. None of our code.
//   NODE_PATH=incentives/contracts/node_modules node outsider.mjs RPC SETTLEMENT TABLES_DIRECTORY [ACCOUNT]
// (`make setup` puts both there; elsewhere: npm i --ignore-scripts ethers@6.17.0 merkletreejs@0.6.0)
// For every final period: the file's hash, its three roots and counts, its sums, what each account is paid for its
// units, and of every receipt in the evidence its hash and signers. For the newest: each payout leaf with merkletreejs'
// own proof, asked of the contract. With ACCOUNT: prints the `cast` line that claims for it.
import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";

const require = createRequire(process.env.NODE_PATH + "/");
const { ethers } = require("ethers");
const { MerkleTree } = require("merkletreejs");

const [rpc, settlement, directory, account] = process.argv.slice(2);
if (!directory) { console.error("usage: outsider.mjs RPC SETTLEMENT TABLES_DIRECTORY [ACCOUNT]"); process.exit(2); }

const payoutLeaf = "(address account,uint64 cumUnits,uint128 cumEarned,uint128 cumForfeited,uint128 cumWithheld,uint128 cumClaimable)";
const provider = new ethers.JsonRpcProvider(rpc, undefined, { batchMaxCount: 1 });
const contract = new ethers.Contract(
  settlement,
  [
    "function numPeriods() view returns (uint32)",
    "function released() view returns (uint128)",
    "function claimed() view returns (uint128)",
    "function funded() view returns (uint128)",
    "function runId() view returns (bytes32)",
    "function unitPrice() view returns (uint128)",
    "function claimedOf(address) view returns (uint256)",
    "function periodAt(uint256) view returns (tuple(bytes32 payoutsRoot,uint64 toEpoch,uint64 totalUnits,uint32 readyAt,uint32 certificatesCount,uint32 receiptsCount,uint32 payoutsCount,uint128 amount,uint128 budget,bytes32 certificatesRoot,bytes32 receiptsRoot,bytes32 tablesHash))",
    `function isPayout(uint256,tuple${payoutLeaf},uint256,bytes32[]) view returns (bool)`,
    `function claim(tuple${payoutLeaf},uint256,bytes32[]) returns (uint256)`,
  ],
  provider,
);

const kinds = {
  certificates: [1, ["uint64", "bytes32", "bytes32"]],
  receipts: [2, ["address", "uint64", "uint32", "uint64", "uint64", "bytes32", "bytes32"]],
  payouts: [3, ["address", "uint64", "uint128", "uint128", "uint128", "uint128"]],
};
const keccak = (data) => Buffer.from(ethers.getBytes(ethers.keccak256(data)));
function treeOf(name, rows) {
  const [kind, types] = kinds[name];
  const leaves = rows.map((row) => keccak(keccak(ethers.AbiCoder.defaultAbiCoder().encode(["uint8", ...types], [kind, ...row]))));
  let size = 1;
  while (size < leaves.length) size *= 2;
  const padded = [...leaves, ...Array.from({ length: size - leaves.length }, () => Buffer.alloc(32))];
  const tree = new MerkleTree(padded, keccak, { sort: false });
  return { root: rows.length ? tree.getHexRoot() : ethers.ZeroHash, proof: (i) => (size === 1 ? [] : tree.getHexProof(leaves[i], i)) };
}
function same(what, ours, theirs) {
  if (String(ours).toLowerCase() !== String(theirs).toLowerCase()) {
    console.error(`${what}: the tables say ${ours}, the chain ${theirs}`);
    process.exit(1);
  }
}

const files = fs.readdirSync(directory).filter((name) => name.endsWith(".json")).map((name) => fs.readFileSync(path.join(directory, name)));
// A receipt as the evidence has it: EIP-712's words, and (signer, signature) pairs. Its row has the hashes of both.
const receiptFields = [["bytes32", "runId"], ["uint64", "epoch"], ["address", "peer"], ["uint32", "units"], ["bytes32", "contribution"], ["bytes32", "certificate"]];
const receiptTypes = { ContributionReceipt: receiptFields.map(([type, name]) => ({ type, name })) };
const receiptHash = ethers.id(`ContributionReceipt(${receiptFields.map((field) => field.join(" ")).join(",")})`);
function checkReceipt([words, pairs], row, domain) {
  const values = ethers.AbiCoder.defaultAbiCoder().decode(receiptFields.map(([type]) => type), words);
  const receipt = Object.fromEntries(receiptFields.map(([, name], i) => [name, values[i]]));
  const where = `receipt of ${row[0]}, epoch ${row[1]}`;
  same(`${where}: account, epoch, units`, [row[0], row[1], row[2]], [receipt.peer, receipt.epoch, receipt.units]);
  same(`${where}: hash`, row[5], ethers.keccak256(ethers.concat([receiptHash, words])));
  same(`${where}: signatures' hash`, row[6], ethers.keccak256(ethers.concat(pairs.map(([, signature]) => signature))));
  for (const [signer, signature] of pairs) same(`${where}: signer`, signer, ethers.verifyTypedData(domain, receiptTypes, receipt, signature));
  return pairs.length;
}

const byHash = new Map(files.map((data) => [ethers.keccak256(data), data]));
const periods = Number(await contract.numPeriods());
const domain = { name: "Sparehive", version: "1", chainId: (await provider.getNetwork()).chainId, verifyingContract: settlement };
let newest, tree, paid = 0n, epoch = 0n;
const earned = new Map();
for (let number = 0; number < periods; number++) {
  const period = await contract.periodAt(number);
  const data = byHash.get(period.tablesHash);
  if (!data) { console.error(`no file here has the hash of period ${number}, ${period.tablesHash}`); process.exit(1); }
  const tables = JSON.parse(data);
  same("run", tables.run_id, await contract.runId());
  same("settlement", tables.settlement, settlement);
  same("first epoch", tables.from_epoch, epoch);
  same("last epoch", tables.to_epoch, period.toEpoch);
  same("unit price", tables.unit_price_amount, await contract.unitPrice());
  for (const name of Object.keys(kinds)) {
    tree = treeOf(name, tables[name]);
    same(`${name}' root of period ${number}`, tree.root, period[`${name}Root`]);
    same(`${name}' count of period ${number}`, tables[name].length, period[`${name}Count`]);
  }
  same("units", tables.receipts.reduce((sum, row) => sum + BigInt(row[2]), 0n), period.totalUnits);
  const price = BigInt(tables.unit_price_amount) * period.totalUnits;
  const pool = price < period.budget ? price : period.budget;
  const units = new Map();
  for (const row of tables.receipts) units.set(row[0], (units.get(row[0]) ?? 0n) + BigInt(row[2]));
  for (const [worker, own] of units) earned.set(worker, (earned.get(worker) ?? 0n) + (pool * own) / period.totalUnits);
  for (const row of tables.payouts) same(`what ${row[0]} has earned`, row[2], earned.get(row[0]));
  const evidence = path.join(directory, `evidence-${number}.json`);
  let signatures = 0;
  if (fs.existsSync(evidence)) {
    const { receipts } = JSON.parse(fs.readFileSync(evidence));
    same("receipts in the evidence", receipts.length, tables.receipts.length);
    receipts.forEach((receipt, i) => { signatures += checkReceipt(receipt, tables.receipts[i], domain); });
  }
  paid += period.amount;
  [newest, epoch] = [tables, period.toEpoch];
  console.log(`period ${number}: epochs ${tables.from_epoch} to ${tables.to_epoch}, ${tables.receipts.length} receipts: hash, roots, counts, payouts agree, ${signatures} signatures`);
}
if (!newest) { console.error("no period is final yet"); process.exit(1); }
same("sum of all payouts", newest.payouts.reduce((sum, row) => sum + BigInt(row[5]), 0n), await contract.released());
same("sum of all periods", paid, await contract.released());
let claimed = 0n;
for (const [index, row] of newest.payouts.entries()) {
  const proof = tree.proof(index); // payouts are the last tree built above
  same(`proof of ${row[0]}`, await contract.isPayout(periods - 1, row, index, proof), true);
  claimed += await contract.claimedOf(row[0]);
  if (account && row[0] === account.toLowerCase()) {
    console.log(`cast send ${settlement} "claim((address,uint64,uint128,uint128,uint128,uint128),uint256,bytes32[])" "(${row.join(",")})" ${index} "[${proof.join(",")}]" --rpc-url ${rpc} --private-key …`);
    console.log(`calldata ${contract.interface.encodeFunctionData("claim", [row, index, proof])}`);
  }
}
same("sum of all claims", claimed, await contract.claimed());
if (!(await contract.released() <= await contract.funded())) process.exit(1);
console.log(`${newest.payouts.length} payout leaves are proved; claimed ${claimed} ≤ released ${paid} ≤ funded ${await contract.funded()}`);
