// A stage of memory: pairs at full speed for minutes, and a consumer that never reads.
//
//   producer ──► orchestrator ──► consumer        native, and a second pair in the Veecle dialect
//                      └────────► silent          gets the native messages too: its queue is full
//
// What counts is how far the resident size moves after a time of settling.

import { mkdirSync } from "node:fs";
import { join } from "node:path";

import { periodFor, type Traffic, typeName } from "./bytes.ts";
import { DaemonProcess } from "./daemon.ts";
import { link, runInstances, writeLoad } from "./loads.ts";
import { type Layout, LoadStage, type Place, type Round, type Stage } from "./stage.ts";
import { residentMiB } from "./vitals.ts";

/** How long a soak takes, how long it may settle, and how often it is looked at, in milliseconds. */
export interface SoakTimes {
  readonly allMs: number;
  readonly settleMs: number;
  readonly lookMs: number;
}

export class SoakStage implements Stage {
  readonly #daemon: DaemonProcess;
  readonly #pairs: readonly LoadStage[];
  readonly #times: SoakTimes;
  readonly #sizesMiB: number[] = [];

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
    const { allMs, settleMs, lookMs } = this.#times;
    const soak = async (pair: LoadStage): Promise<Round[]> => {
      const rounds: Round[] = [];
      while (passedMs() < allMs) rounds.push(await pair.run(count));
      return rounds;
    };
    let settledMiB = 0;
    let driftMiB = 0;
    const look = async (): Promise<void> => {
      for (let dueMs = settleMs; dueMs <= allMs; dueMs += lookMs) {
        await Bun.sleep(dueMs - passedMs());
        const size = residentMiB(this.#daemon.pid);
        this.#sizesMiB.push(size);
        if (dueMs === settleMs) settledMiB = size;
        driftMiB = Math.max(driftMiB, Math.abs(size - settledMiB));
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
      driftMiB,
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
    const sizes = this.#sizesMiB.map((size) => size.toFixed(0)).join(" ");
    return `resident, in MiB, every ${this.#times.lookMs / 1e3} s: ${sizes}`;
  }

  async close(): Promise<void> {
    for (const pair of this.#pairs) await pair.close();
    await this.#daemon.stop();
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
