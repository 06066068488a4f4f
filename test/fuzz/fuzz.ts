// `bun run fuzz [surface…] [--seed N] [--inputs N] [--minutes M]`: looks for inputs that break a rule.
//
// Without a surface, all of them. What is found is shortened and printed as an entry of `found.ts`,
// which the tests replay; the exit code is then 1.

import { parseArgs } from "node:util";

import { formatFound, search } from "./search.ts";
import { SURFACES } from "./surfaces.ts";

/** Inputs between two looks at the clock. */
const SLICE = 1_000;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seed: { type: "string", default: "1" },
    inputs: { type: "string", default: "1000000" },
    minutes: { type: "string" },
  },
});
const names = positionals.length > 0 ? positionals : Object.keys(SURFACES);
const unknown = names.filter((name) => SURFACES[name] === undefined);
if (unknown.length > 0) {
  console.error(`unknown: ${unknown.join(", ")}; there are ${Object.keys(SURFACES).join(", ")}`);
  process.exit(2);
}

/** Without what waits to be collected. */
function resident(): number {
  Bun.gc(true);
  return process.memoryUsage.rss();
}

let rejections = 0;
process.on("unhandledRejection", () => rejections++);

for (const name of names) {
  const surface = (
    SURFACES[name] as () => (typeof SURFACES)[string] extends () => infer S ? S : never
  )();
  const first = Number(values.seed);
  const minutes = values.minutes === undefined ? Number.POSITIVE_INFINITY : Number(values.minutes);
  const startMs = performance.now();
  let tried = 0;
  let residentBytes = 0;
  let slowestMs = 0;
  while (tried < Number(values.inputs) && performance.now() - startMs < minutes * 60_000) {
    const sliceMs = performance.now();
    const found = await search(surface, first + tried, SLICE);
    if (found !== undefined) {
      console.log(formatFound(name, found));
      process.exitCode = 1;
      break;
    }
    tried += SLICE;
    slowestMs = Math.max(slowestMs, (performance.now() - sliceMs) / SLICE);
    Bun.gc(false);
    if (tried === SLICE * 10) residentBytes = resident(); // warm by now
  }
  const grown = residentBytes === 0 ? 0 : (resident() - residentBytes) / 2 ** 20;
  const seconds = (performance.now() - startMs) / 1_000;
  console.log(
    `${name.padEnd(16)} ${String(tried).padStart(9)} inputs  ${seconds.toFixed(0).padStart(4)} s  ` +
      `slowest ${slowestMs.toFixed(2)} ms  memory ${grown < 0 ? "" : "+"}${grown.toFixed(0)} MiB  ${rejections} rejections`,
  );
}
