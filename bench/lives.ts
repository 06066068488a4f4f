// Rows of supervision: what it costs to start, notice, replace, stop and tell of processes, and to
// keep a hundred of them while nothing happens. See `keepers.ts` for who is compared.

import { crc32 } from "node:zlib";

import { BareKeeper, isRunning, type Keeper, Orchestra, type OrchestraOptions } from "./keepers.ts";
import type { Figure, Row } from "./row.ts";
import { median, type Round, type Stage } from "./stage.ts";
import { processorMs, residentMiB, sleeps } from "./vitals.ts";

/** Does one round of a row's work. */
type Work = (keeper: Keeper, count: number) => Promise<Partial<Round>>;

class LifeStage implements Stage {
  readonly #keeper: Keeper;
  readonly #work: Work;

  constructor(keeper: Keeper, work: Work) {
    this.#keeper = keeper;
    this.#work = work;
  }

  async run(count: number): Promise<Round> {
    const work = await this.#work(this.#keeper, count);
    const crc = crc32(String(count)) || 1;
    return { elapsedMs: 0, count, bytes: 0, crc, p50: 0, p99: 0, ...work };
  }

  async audit(): Promise<number> {
    return 0;
  }

  async close(): Promise<void> {
    await this.#keeper.close();
  }
}

interface Life {
  readonly key: string;
  readonly figures: readonly Figure[];
  /** Processes that are kept. */
  readonly kept: { readonly full: number; readonly smoke: number };
  /** Of the work in one round. */
  readonly count: { readonly full: number; readonly smoke: number };
  readonly rounds?: number;
  readonly ours?: OrchestraOptions;
  readonly listens?: boolean;
  readonly asks?: boolean;
  /** Is done once, before any round. */
  prepare?(keeper: Keeper): Promise<unknown>;
  readonly work: Work;
}

function life({ key, figures, kept, count, rounds, work, ...options }: Life): Row {
  /** Of a bare answer: as many as ours had. */
  let bytes = 0;
  return {
    key,
    figures,
    count: count.full,
    smokeCount: count.smoke,
    runIn: 0,
    ...(rounds === undefined ? {} : { rounds }),
    open: (kind, place, isSmoke) => {
      if (kind === "direct") return undefined;
      const size = isSmoke ? kept.smoke : kept.full;
      const open = async (): Promise<Stage> => {
        const keeper =
          kind === "ours"
            ? await Orchestra.open(place, size, options.ours)
            : await BareKeeper.open(place, size, {
                listens: options.listens ?? false,
                answers:
                  options.asks === true ? { path: `${place.folder}/answers`, bytes } : undefined,
              });
        if (kind === "ours" && options.asks === true) ({ bytes } = await keeper.ask());
        await options.prepare?.(keeper);
        return new LifeStage(keeper, work);
      };
      return open();
    },
  };
}

function expectRunning(pids: readonly number[]): void {
  const gone = pids.filter((pid) => !isRunning(pid));
  if (gone.length > 0) throw new Error(`Processes ${gone.join(", ")} do not run`);
  if (new Set(pids).size !== pids.length) throw new Error("Two of them are the same process");
}

/** The 99th percentile. */
function p99(times: readonly number[]): number {
  return times.toSorted((a, b) => a - b)[Math.floor(times.length * 0.99)] ?? Number.NaN;
}

const crashes: Row = life({
  key: "crashes",
  figures: [
    { name: "an exit noticed, p99", unit: "ms", target: 2, read: (round) => round.noticedMs ?? 0 },
    { name: "a crash replaced, p99", unit: "ms", target: 2, read: (round) => round.elapsedMs },
  ],
  kept: { full: 25, smoke: 2 },
  count: { full: 200, smoke: 4 }, // fewer than ten of each, which would be too many restarts
  ours: { settings: { restart: "always", restartDelayMs: 0 } },
  work: async (keeper, count) => {
    const pids = [...(await keeper.start())];
    const noticed: number[] = [];
    const replaced: number[] = [];
    for (let i = 0; i < count; i++) {
      const index = i % pids.length;
      const one = await keeper.replace(index, pids[index] as number);
      pids[index] = one.pid;
      noticed.push(one.noticedMs);
      replaced.push(one.replacedMs);
    }
    expectRunning(pids);
    await keeper.stop();
    return { noticedMs: p99(noticed), elapsedMs: p99(replaced) };
  },
});

const stops: Row = life({
  key: "stops",
  figures: [{ name: "100 stops", unit: "ms", target: 2, read: ({ elapsedMs }) => elapsedMs }],
  kept: { full: 100, smoke: 10 },
  count: { full: 100, smoke: 10 },
  work: async (keeper) => {
    const pids = await keeper.start();
    expectRunning(pids);
    const begin = performance.now();
    await keeper.stop();
    const elapsedMs = performance.now() - begin;
    const left = pids.filter(isRunning);
    if (left.length > 0) throw new Error(`Processes ${left.join(", ")} were not stopped`);
    return { elapsedMs };
  },
});

const rebirths: Row = life({
  key: "rebirths",
  figures: [
    {
      name: "killed and started again, until 50 run",
      unit: "ms",
      target: 1.5,
      read: ({ elapsedMs }) => elapsedMs,
    },
  ],
  kept: { full: 50, smoke: 5 },
  count: { full: 50, smoke: 5 },
  ours: { isBuilt: true }, // the bare program is one file, and nothing of it has to be translated
  prepare: (keeper) => keeper.start(),
  work: async (keeper) => ({ elapsedMs: await keeper.rebirth() }),
});

const info: Row = life({
  key: "info",
  figures: [
    { name: "Info of 1,000 instances", unit: "ms", target: 2, read: ({ elapsedMs }) => elapsedMs },
  ],
  kept: { full: 1_000, smoke: 20 },
  count: { full: 50, smoke: 5 },
  asks: true,
  work: async (keeper, count) => {
    const times: number[] = [];
    let bytes = 0;
    for (let i = 0; i < count; i++) {
      const answer = await keeper.ask();
      times.push(answer.elapsedMs);
      bytes += answer.bytes;
    }
    return { elapsedMs: median(times), bytes };
  },
});

/** What a program is given to come to rest after a hundred starts, the time of its engine included. */
const SETTLE_MS = 5_000;

const idle: Row = life({
  key: "idle",
  figures: [
    {
      name: "100 instances at rest, processor time",
      unit: "%",
      limit: 0.1,
      read: ({ busyPercent = Number.NaN }) => busyPercent,
    },
    {
      name: "100 instances at rest, wakeups in a minute",
      unit: "times",
      target: 2, // the engine's own timer wakes both, about once a second
      read: ({ wakeups = Number.NaN }) => wakeups,
    },
    {
      name: "100 instances at rest, resident",
      unit: "MiB",
      target: 1.4,
      read: ({ residentMiB: size = Number.NaN }) => size,
    },
  ],
  kept: { full: 100, smoke: 10 },
  count: { full: 60_000, smoke: 2_000 },
  rounds: 1,
  listens: true,
  prepare: async (keeper) => {
    expectRunning(await keeper.start());
    await Bun.sleep(SETTLE_MS);
  },
  work: async ({ pid }, ms) => {
    const before = { sleeps: sleeps(pid), busyMs: processorMs(pid) };
    await Bun.sleep(ms);
    return {
      elapsedMs: ms,
      wakeups: ((sleeps(pid) - before.sleeps) * 60_000) / ms,
      busyPercent: ((processorMs(pid) - before.busyMs) / ms) * 100,
      residentMiB: residentMiB(pid),
    };
  },
});

export const LIVES: readonly Row[] = [crashes, stops, rebirths, info, idle];
