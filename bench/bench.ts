// Runs the benchmarks and prints one table: `bun run bench [--smoke] [--rounds N] [row…]`.
//
// Every figure is a ratio to a baseline of the same run on the same bytes. Rounds of ours and of the
// baseline take turns, and the ratio is the median over pairs of neighbours. The work is checked by
// count and checksum at every consumer and against the daemon's accounts; wrong work fails the run.

import { mkdtempSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { messageChain } from "../src/errors.ts";
import { runPeers } from "./peers.ts";
import { type Figure, isRate, type Row } from "./row.ts";
import { ROWS } from "./rows.ts";
import { SideChannel } from "./side.ts";
import { ONE_CORE } from "./loads.ts";
import { median, type Place, type Round, type Stage, type StageKind } from "./stage.ts";
import { formatHeader, formatMissing, formatResult, formatSummary, type Result } from "./table.ts";

export interface BenchOptions {
  readonly isSmoke: boolean;
  readonly rounds: number;
  /** Keys of the rows; empty: all but those that run on request. */
  readonly keys: readonly string[];
  readonly onResult: (result: Result) => void;
  /** Told of a row that needs a program which is not installed. */
  readonly onMissing?: (row: Row) => void;
}

/** Many short rounds in turn: what else the machine does then meets both sides of a pair. */
const ROUNDS = 11;
/** Rounds that are not counted, in which the engine compiles what is hot. */
const WARM_UP_ROUNDS = 3;

type Rounds = Record<StageKind, Round[]>;

/** Runs rows one after another. @throws if a row's work is wrong, naming the row */
export async function runBench(options: BenchOptions): Promise<Result[]> {
  const unknown = options.keys.filter((key) => !ROWS.some((row) => row.key === key));
  if (unknown.length > 0) {
    throw new Error(
      `Unknown row ${unknown.join(", ")}; there are ${ROWS.map(({ key }) => key).join(", ")}`,
    );
  }
  // Paths of sockets must be short.
  const folder = mkdtempSync(join(tmpdir().length > 32 ? "/tmp" : tmpdir(), "bench-"));
  const results: Result[] = [];
  using side = new SideChannel(join(folder, "side"));
  for (const [i, row] of ROWS.entries()) {
    const isWanted = options.keys.length === 0 && row.isOnRequest !== true;
    if (!isWanted && !options.keys.includes(row.key)) continue;
    if (row.needs !== undefined && row.needs.path === undefined) {
      options.onMissing?.(row);
      continue;
    }
    const place = (kind: StageKind): Place => ({ folder: join(folder, `${i}${kind}`), side });
    try {
      for (const result of await runRow(row, place, options)) {
        results.push(result);
        options.onResult(result);
      }
    } catch (error) {
      throw new Error(`Row ${row.key} failed; plans and logs are in ${folder}`, { cause: error });
    }
  }
  rmSync(folder, { recursive: true });
  return results;
}

async function runRow(
  row: Row,
  place: (kind: StageKind) => Place,
  { isSmoke, ...options }: BenchOptions,
): Promise<Result[]> {
  const rounds = row.rounds ?? options.rounds;
  const warmUps = isSmoke || rounds === 1 ? 0 : WARM_UP_ROUNDS;
  const count = isSmoke ? row.smokeCount : row.count;
  const stages = new Map<StageKind, Stage>();
  const done: Rounds = { ours: [], bare: [], direct: [] };
  try {
    for (const kind of ["ours", "bare", "direct"] as const) {
      const stage = await row.open(kind, place(kind), isSmoke);
      if (stage !== undefined) stages.set(kind, stage);
    }
    for (let round = 0; round < warmUps; round++) {
      for (const stage of stages.values()) await stage.run(count);
    }
    for (let round = 0; round < rounds; round++) {
      // Every other time in reverse, so that a machine that slows down favours nobody.
      const turns = round % 2 === 0 ? [...stages] : [...stages].reverse();
      for (const [kind, stage] of turns) {
        // Processes that were idle get their memory and caches back before the clock runs.
        if (row.runIn > 0 && !isSmoke) await stage.run(row.runIn);
        done[kind].push(await stage.run(count));
      }
    }
    for (const stage of stages.values()) await stage.audit();
    const ours = stages.get("ours") as Stage;
    const dropped = await ours.audit();
    const note = ours.note?.();
    return row.figures.map((figure) => ({
      ...summarise(figure, done, dropped),
      ...(isSmoke ? { isReached: undefined } : {}), // figures of that size mean nothing
      note,
    }));
  } finally {
    await closeAll([...stages.values()]);
  }
}

/** Closes every stage, whatever becomes of another. */
async function closeAll(stages: readonly Stage[]): Promise<void> {
  const results = await Promise.allSettled(stages.map((stage) => stage.close()));
  for (const result of results) if (result.status === "rejected") throw result.reason;
}

function summarise(
  figure: Figure,
  { ours, bare, direct }: Rounds,
  dropped: number,
): Omit<Result, "note"> {
  const value = median(ours.map(figure.read));
  const ratios = bare.map((round, i) => figure.read(ours[i] as Round) / figure.read(round));
  const ratio = ratios.length === 0 ? undefined : median(ratios);
  const sum = (read: (round: Round) => number): number =>
    ours.reduce((total, round) => total + read(round), 0);
  return {
    figure,
    ours: value,
    bare: bare.length === 0 ? undefined : median(bare.map(figure.read)),
    direct: direct.length === 0 ? undefined : median(direct.map(figure.read)),
    ratio,
    spread: [Math.min(...ratios), Math.max(...ratios)],
    isReached: isReached(figure, value, ratio),
    count: sum((round) => round.count),
    bytes: sum((round) => round.bytes),
    crc: ours[0]?.crc ?? 0,
    dropped,
  };
}

/** Whether a figure is what it has to be; undefined if nothing is asked of it. */
function isReached(figure: Figure, value: number, ratio: number | undefined): boolean | undefined {
  if (figure.limit !== undefined) return value <= figure.limit;
  if (figure.target === undefined || ratio === undefined) return undefined;
  return isRate(figure) ? ratio >= figure.target : ratio <= figure.target;
}

/** Share of the machine's time that others take just now, 0 to 1. */
async function busyShare(): Promise<number> {
  const look = (): { idle: number; all: number } => {
    const times = cpus().map((cpu) => cpu.times);
    const sum = (numbers: number[]): number => numbers.reduce((total, one) => total + one, 0);
    return {
      idle: sum(times.map(({ idle }) => idle)),
      all: sum(times.flatMap((time) => Object.values(time))),
    };
  };
  const before = look();
  await Bun.sleep(500);
  const after = look();
  return 1 - (after.idle - before.idle) / (after.all - before.all);
}

const USAGE = `Usage: bun run bench [--smoke] [--rounds N] [row…]
       bun run bench --peers [--smoke] [manager…]

Rows: ${ROWS.map(({ key }) => key).join(" ")}
  --smoke     one round of very little work: the work is checked, the figures mean nothing
  --peers     other process managers, those that are installed, each by its own tools
  --rounds N  rounds of each row (${ROUNDS})
memory takes five minutes and trip-free says nothing by its ratio: they run only if they are named.
Ratios are medians over pairs of neighbouring rounds, with the least and the greatest of them.
`;

async function main(argv: readonly string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args: [...argv],
    allowPositionals: true,
    options: {
      smoke: { type: "boolean", default: false },
      peers: { type: "boolean", default: false },
      rounds: { type: "string", default: String(ROUNDS) },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    console.log(USAGE);
    return 0;
  }
  const isSmoke = values.smoke;
  if (values.peers) {
    await runPeers(isSmoke, positionals);
    return 0;
  }
  const rounds = isSmoke ? 1 : Number(values.rounds);
  if (!Number.isInteger(rounds) || rounds < 1) throw new Error("--rounds takes a whole number");
  for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));
  const busy = (100 * (await busyShare())).toFixed(0);
  console.log(
    `${cpus()[0]?.model}, ${cpus().length} cores, Bun ${Bun.version}, ` +
      `rounds: ${rounds}, busy with other work before: ${busy} %\n`,
  );
  if (ONE_CORE.length === 0) console.log("There is no taskset: round trips are on all cores.\n");
  console.log(formatHeader());
  const onResult = (result: Result): void => console.log(formatResult(result));
  const onMissing = (row: Row): void => console.log(formatMissing(row));
  const results = await runBench({ isSmoke, rounds, keys: positionals, onResult, onMissing });
  console.log(`\n${formatSummary(results, isSmoke)}`);
  return 0;
}

if (import.meta.main) {
  process.exitCode = await main(process.argv.slice(2)).catch((error: unknown) => {
    console.error(`error: ${messageChain(error).join("\ncaused by: ")}`);
    return 1;
  });
}
