// The experiments of the guarantees at full size: `bun run soak [--scale N] [name…]`.
//
// The same code runs at a small size in the tests. Here figures are held to what is promised; what
// must be exact (accounts, order, losses) fails an experiment at any size.

import { cpus, loadavg } from "node:os";
import { parseArgs } from "node:util";

import { messageChain } from "../src/errors.ts";
import {
  badConsumer,
  CONSUMER_VICES,
  type ConsumerVice,
  removals,
  restarts,
} from "../test/experiments/consumers.ts";
import { crowd } from "../test/experiments/crowds.ts";
import { kills, rivals, successors } from "../test/experiments/deaths.ts";
import { brokenEnvironments } from "../test/experiments/environments.ts";
import { crashLoops, exits } from "../test/experiments/exits.ts";
import { fullDisk } from "../test/experiments/disks.ts";
import { badServer, SERVER_VICES } from "../test/experiments/exporter.ts";
import { FLOODS, flood, roundTrips } from "../test/experiments/floods.ts";
import { circle, orchestrators } from "../test/experiments/loops.ts";
import { double, OFFENCES, type Offence, offend } from "../test/experiments/offenders.ts";
import { garbage } from "../test/experiments/garbage.ts";
import { FULL_MASS, mass, scarce } from "../test/experiments/masses.ts";
import { formatFigure, misses, type Outcome } from "../test/experiments/outcome.ts";
import { type Race, race, RACES } from "../test/experiments/races.ts";
import { simulation } from "../test/experiments/simulation.ts";
import {
  elsewhere,
  escapes,
  intruder,
  isRoot,
  otherMachine,
  otherUser,
} from "../test/experiments/strangers.ts";
import { bomb, daemonEnds, EVASIONS, evasion, manyStops } from "../test/experiments/stops.ts";

/** One line of the table: `scaled` makes counts and times smaller for a shorter run. */
interface Experiment {
  /** The guarantee, and what is varied; a part of it chooses it on the command line. */
  readonly name: string;
  run(scaled: (full: number) => number): Promise<Outcome>;
}

/** Rounds of `badConsumer`, `flood` and the like: half of each is with the vice. */
const ROUNDS = 20;

const EXPERIMENTS: readonly Experiment[] = [
  {
    name: "R1 kills",
    run: (scaled) => kills({ clients: 8, rounds: scaled(100), seed: Date.now() }),
  },
  { name: "R2 successors", run: (scaled) => successors({ instances: 50, rounds: scaled(20) }) },
  {
    name: "R6 full disk",
    run: (scaled) => fullDisk({ rounds: ROUNDS, ms: scaled(60_000) / ROUNDS }),
  },
  {
    name: "R7 SIGTERM",
    run: (scaled) =>
      daemonEnds({ instances: 100, stubborn: 20, graceMs: 1_000, rounds: scaled(50) }),
  },
  { name: "R8 rivals", run: () => rivals(20) },
  { name: "R9 environments", run: brokenEnvironments },
  { name: "R10 exits", run: (scaled) => exits({ instances: 200, ms: scaled(10_000) }) },
  ...EVASIONS.map((kind) => ({
    name: `R11 ${kind}`,
    run: (scaled: (full: number) => number) => evasion(kind, { count: scaled(100), graceMs: 100 }),
  })),
  { name: "R12 bomb", run: () => bomb({ processes: 500, escape: false }) },
  { name: "R12 bomb of sessions", run: () => bomb({ processes: 500, escape: true }) },
  { name: "R13 stops", run: () => manyStops({ instances: 100, graceMs: 1_000 }) },
  {
    name: "R14 crash loops",
    run: (scaled) => crashLoops({ instances: 500, ms: scaled(600_000) }),
  },
  {
    // Endless with a large enough `--scale`.
    name: "R15 simulation of the core",
    run: (scaled) => simulation({ seed: Date.now(), ms: scaled(600_000) }),
  },
  ...(Object.keys(RACES) as Race[]).map((name) => ({
    name: `R15 ${name}`,
    run: (scaled: (full: number) => number) => race(name, scaled(1_000)),
  })),
  ...(Object.keys(CONSUMER_VICES) as ConsumerVice[]).map((vice) => ({
    name: `R19 consumer ${vice}`,
    run: (scaled: (full: number) => number) =>
      badConsumer(vice, { consumers: 9, rounds: ROUNDS, ms: scaled(60_000) / ROUNDS }),
  })),
  { name: "R19 consumers removed", run: (scaled) => removals(scaled(100)) },
  {
    name: "R19 everybody",
    run: (scaled) => mass({ ...FULL_MASS, rounds: scaled(FULL_MASS.rounds) }),
  },
  { name: "R19 too little memory", run: () => scarce({ instances: 200, messages: 50_000 }) },
  {
    name: "R20 restarts",
    run: (scaled) => restarts({ messages: scaled(10_000_000), restarts: scaled(100) }),
  },
  ...[1, 2, 3].flatMap((instances) =>
    [{}, { on_full: "block", queue: 10 }].map((settings) => ({
      name: `R21 circle of ${instances}${"on_full" in settings ? ", blocking" : ""}`,
      run: (scaled: (full: number) => number) =>
        circle({ instances, messages: 10_000, ms: scaled(30_000), settings }),
    })),
  ),
  {
    name: "R21 two orchestrators",
    run: (scaled) => orchestrators({ messages: 100, ms: scaled(60_000) }),
  },
  ...(Object.keys(OFFENCES) as Offence[]).map((offence) => ({
    name: `R22 ${offence}`,
    run: (scaled: (full: number) => number) => offend(offence, scaled(1_000)),
  })),
  { name: "R22 second connection", run: (scaled) => double(scaled(1_000)) },
  ...SERVER_VICES.map((vice) => ({
    name: `R23 server ${vice}`,
    run: (scaled: (full: number) => number) =>
      badServer(vice, {
        linesPerSecond: 10_000,
        bytesPerLine: 220,
        rounds: 2,
        ms: scaled(60_000),
      }),
  })),
  ...FLOODS.map((kind) => ({
    name: `R24 flood ${kind}`,
    run: (scaled: (full: number) => number) =>
      flood(kind, { groups: 9, rounds: ROUNDS, ms: scaled(20_000) / ROUNDS }),
  })),
  {
    name: "R25 crowd",
    run: (scaled) => crowd({ silent: 1_000, slow: 1_000, ms: scaled(300_000) }),
  },
  {
    name: "R27 garbage",
    run: (scaled) => garbage({ inputs: scaled(100_000), seed: Date.now() % 2 ** 32 }),
  },
  {
    name: "R26 descriptors",
    run: (scaled) => crowd({ silent: 300, slow: 0, ms: scaled(60_000), descriptors: 128 }),
  },
  { name: "S3 intruder", run: (scaled) => intruder(scaled(1_000)) },
  ...(isRoot
    ? [
        {
          name: "S5 other user",
          run: (scaled: (full: number) => number) => otherUser(scaled(1_000)),
        },
      ]
    : []),
  ...(elsewhere === undefined
    ? []
    : [
        {
          name: "S5 guessed tokens",
          run: (scaled: (full: number) => number) =>
            otherMachine(scaled(10_000), elsewhere as string),
        },
      ]),
  { name: "S8 escapes", run: (scaled) => escapes(scaled(10_000)) },
  ...FLOODS.map((kind) => ({
    name: `R24 round trips ${kind}`,
    run: (scaled: (full: number) => number) =>
      roundTrips({ kinds: [kind], rounds: ROUNDS, ms: scaled(10_000) / ROUNDS }),
  })),
];

const WIDTHS = [38, 8, 7] as const;

function line(cells: readonly string[]): string {
  return cells.map((cell, i) => cell.padEnd(WIDTHS[i] ?? 0)).join("  ");
}

/** Runs one experiment and returns its line; `isGood` says whether every promise was kept. */
async function soak(
  { name, run }: Experiment,
  scale: number,
): Promise<{ text: string; isGood: boolean }> {
  const begin = performance.now();
  const seconds = (): string => `${((performance.now() - begin) / 1_000).toFixed(0)} s`;
  try {
    const outcome = await run((full) => Math.max(1, Math.round(full * scale)));
    const missed = misses(outcome, "promised");
    const result = [outcome.work, ...outcome.figures.map(formatFigure)].join("; ");
    const cells = [name, missed.length === 0 ? "kept" : "MISSED", seconds(), result];
    return { text: line(cells), isGood: missed.length === 0 };
  } catch (error) {
    const cells = [name, "BROKEN", seconds(), messageChain(error).join(": ")];
    return { text: line(cells), isGood: false };
  }
}

async function main(argv: readonly string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args: [...argv],
    allowPositionals: true,
    options: { scale: { type: "string", default: "1" } },
  });
  const scale = Number(values.scale);
  if (!(scale > 0)) throw new Error("--scale takes a number above 0");
  const wanted = EXPERIMENTS.filter(({ name }) => {
    return positionals.length === 0 || positionals.some((part) => name.includes(part));
  });
  if (wanted.length === 0) {
    throw new Error(`There are ${EXPERIMENTS.map(({ name }) => JSON.stringify(name)).join(", ")}`);
  }
  const load = loadavg()[0]?.toFixed(1);
  console.log(`${cpus()[0]?.model}, ${cpus().length} cores, load ${load}, scale ${scale}\n`);
  console.log(line(["experiment", "promise", "time", "what was done, and what came of it"]));
  let isGood = true;
  for (const experiment of wanted) {
    const result = await soak(experiment, scale);
    console.log(result.text);
    isGood &&= result.isGood;
  }
  return isGood ? 0 : 1;
}

if (import.meta.main) {
  process.exitCode = await main(process.argv.slice(2)).catch((error: unknown) => {
    console.error(`error: ${messageChain(error).join("\ncaused by: ")}`);
    return 1;
  });
}
