// A stage of memory: pairs at full speed for minutes, and a consumer that never reads.
//
//   producer ──► orchestrator ──► consumer        native, and a second pair in the Veecle dialect
//                      └────────► silent          gets the native messages too: its queue is full
//
// The engine lets garbage lie and collects it in turns: the resident size is a sawtooth. What counts is
// how far its median over a window moves from that of the first window after a time of settling.

import { mkdirSync } from "node:fs";
import { join } from "node:path";

import { periodFor, type Traffic, typeName } from "./bytes.ts";
import { DaemonProcess } from "./daemon.ts";
import { link, runInstances, writeLoad } from "./loads.ts";
import { type Layout, LoadStage, median, type Place, type Round, type Stage } from "./stage.ts";
import { residentMiB } from "./vitals.ts";

/** How often the resident size is looked at. */
const LOOK_MS = 100;

/** How long a soak takes, and its windows, of which the first is for settling; in milliseconds. */
export interface SoakTimes {
  readonly allMs: number;
  readonly windowMs: number;
}

export class SoakStage implements Stage {
  readonly #daemon: DaemonProcess;
  readonly #pairs: readonly LoadStage[];
  readonly #times: SoakTimes;
  readonly #mediansMiB: number[] = [];
  #leastMiB = Number.POSITIVE_INFINITY;
  #greatestMiB = 0;

  private constructor(daemon: DaemonProcess, pairs: readonly LoadStage[], times: SoakTimes) {
    this.#daemon = daemon;
    this.#pairs = pairs;
    this.#times = times;
  }

  static async open(
    place: Place,
    layouts: readonly Layout[],
    times: SoakTimes,
  ): Promise<SoakStage> {
    mkdirSync(place.folder);
    const daemon = await DaemonProcess.start(place.folder);
    try {
      const pairs: LoadStage[] = [];
      for (const [i, layout] of layouts.entries()) {
        const pairPlace = { ...place, folder: join(place.folder, `${i}`) };
        pairs.push(await LoadStage.open(pairPlace, "orchestrator", layout, daemon));
      }
      await startSilent(place, daemon, layouts[0] as Layout);
      return new SoakStage(daemon, pairs, times);
    } catch (error) {
      await daemon.stop();
      throw error;
    }
  }

  /** Rounds of `count` messages of each pair, without a pause between them, until the time is over. */
  async run(count: number): Promise<Round> {
    const beganAt = performance.now();
    const passedMs = (): number => performance.now() - beganAt;
    const { allMs, windowMs } = this.#times;
    const soak = async (pair: LoadStage): Promise<Round[]> => {
      const rounds: Round[] = [];
      while (passedMs() < allMs) rounds.push(await pair.run(count));
      return rounds;
    };
    const look = async (): Promise<void> => {
      for (let end = windowMs; end <= allMs; end += windowMs) {
        const sizes: number[] = [];
        for (; passedMs() < end; await Bun.sleep(LOOK_MS)) {
          sizes.push(residentMiB(this.#daemon.pid));
        }
        if (end > windowMs) this.#note(sizes);
      }
    };
    const [, ...done] = await Promise.all([look(), ...this.#pairs.map(soak)]);
    const rounds = done.flat();
    const sum = (read: (round: Round) => number): number =>
      rounds.reduce((total, round) => total + read(round), 0);
    return {
      elapsedMs: passedMs(),
      count: sum((round) => round.count),
      bytes: sum((round) => round.bytes),
      crc: rounds[0]?.crc ?? 0,
      p50: 0,
      p99: 0,
      driftMiB: Math.max(...this.#mediansMiB.map((size) => Math.abs(size - this.#settledMiB))),
    };
  }

  /** Every consumer that reads got everything; what the silent one lost is as it should be. */
  async audit(): Promise<number> {
    const { routes } = await this.#daemon.info();
    for (const { routed, delivered, queued, dropped } of routes) {
      const lost = Object.values(dropped).reduce((total, one) => total + one, 0);
      if (routed !== delivered + lost + queued) throw new Error("The accounts do not add up");
    }
    if (!routes.some(({ dropped }) => (dropped["full"] ?? 0) > 0)) {
      throw new Error("The queue of the silent consumer was never full");
    }
    return 0;
  }

  note(): string {
    const medians = this.#mediansMiB.map((size) => size.toFixed(0)).join(" ");
    const range = `${this.#leastMiB.toFixed(0)} to ${this.#greatestMiB.toFixed(0)}`;
    return `medians of ${this.#times.windowMs / 1e3} s, in MiB: ${medians}; all between ${range}`;
  }

  async close(): Promise<void> {
    for (const pair of this.#pairs) await pair.close();
    await this.#daemon.stop();
  }

  get #settledMiB(): number {
    return this.#mediansMiB[0] ?? Number.NaN;
  }

  /** Takes in a window that is over. */
  #note(sizes: readonly number[]): void {
    this.#mediansMiB.push(median(sizes));
    this.#leastMiB = Math.min(this.#leastMiB, ...sizes);
    this.#greatestMiB = Math.max(this.#greatestMiB, ...sizes);
  }
}

/** Links what the first pair sends to an instance that never reads. */
async function startSilent(
  { folder, side }: Place,
  daemon: DaemonProcess,
  { from, firstType, payloadBytes }: Layout,
): Promise<void> {
  const types = [firstType];
  const traffic: Traffic = { wire: from, types, payloadBytes, period: periodFor(payloadBytes, 1) };
  const silent = writeLoad({
    name: join(folder, "s"),
    side: side.path,
    role: "silent",
    greets: "orchestrator",
    traffic,
  });
  await runInstances(daemon, [silent], [link(undefined, typeName(firstType), silent.id)]);
}
