// A stage of fairness: a slow pair and a client of the control socket, while another instance floods.
//
//   ours    flooder ──► orchestrator ──► consumer        sends what the kernel takes, waits for nobody
//           asker   ◄─► orchestrator ◄─► echo            a message every few milliseconds
//           bench   ◄─► orchestrator                     a request every few milliseconds
//   bare    the same without the flood
//
// What the flood loses by a full queue is not counted: the slow pair must lose nothing.

import { mkdirSync } from "node:fs";
import { join } from "node:path";

import type { Dialect } from "../src/message.ts";
import { ACK_BYTES } from "./plan.ts";
import { periodFor, type Traffic, typeName } from "./bytes.ts";
import { DaemonProcess } from "./daemon.ts";
import { link, runInstances, writeLoad } from "./loads.ts";
import type { Helper } from "./side.ts";
import { type Layout, LoadStage, type Place, type Round, type Stage } from "./stage.ts";

const FLOOD_TYPE = 9;
const REQUEST_PAUSE_MS = 2;
const HALT_MS = 10_000;

export class FloodStage implements Stage {
  readonly #daemon: DaemonProcess;
  readonly #slow: LoadStage;
  readonly #flooder: Helper | undefined;

  private constructor(daemon: DaemonProcess, slow: LoadStage, flooder: Helper | undefined) {
    this.#daemon = daemon;
    this.#slow = slow;
    this.#flooder = flooder;
  }

  /** `layout` is of the slow pair; nobody floods without a dialect. */
  static async open(place: Place, layout: Layout, dialect?: Dialect): Promise<FloodStage> {
    mkdirSync(place.folder);
    const daemon = await DaemonProcess.start(place.folder);
    try {
      const slowPlace = { ...place, folder: join(place.folder, "slow") };
      const slow = await LoadStage.open(slowPlace, "orchestrator", layout, daemon);
      const flooder = dialect && (await startFlooder(place, daemon, dialect));
      return new FloodStage(daemon, slow, flooder);
    } catch (error) {
      await daemon.stop();
      throw error;
    }
  }

  async run(count: number): Promise<Round> {
    this.#flooder?.tell({ kind: "flood" });
    const requests = new Requests(this.#daemon);
    const round = await this.#slow.run(count);
    const controlMs = await requests.end();
    await this.#flooder?.ask({ kind: "halt" }, HALT_MS);
    return { ...round, controlMs };
  }

  audit(): Promise<number> {
    return this.#slow.audit();
  }

  async close(): Promise<void> {
    await this.#slow.close();
    await this.#daemon.stop();
  }
}

/** Control requests, one after the other, with a pause between them. */
class Requests {
  readonly #daemon: DaemonProcess;
  readonly #done: Promise<void>;
  readonly #timesMs: number[] = [];
  #isOver = false;

  constructor(daemon: DaemonProcess) {
    this.#daemon = daemon;
    this.#done = this.#ask();
  }

  /** Ends them, and returns the 99th percentile of how long they took. */
  async end(): Promise<number> {
    this.#isOver = true;
    await this.#done;
    const sorted = this.#timesMs.toSorted((a, b) => a - b);
    return sorted[Math.floor(sorted.length * 0.99)] ?? Number.NaN;
  }

  async #ask(): Promise<void> {
    while (!this.#isOver) {
      const beganAt = performance.now();
      await this.#daemon.requestAll([{ kind: "Version" }]);
      this.#timesMs.push(performance.now() - beganAt);
      await Bun.sleep(REQUEST_PAUSE_MS);
    }
  }
}

async function startFlooder(
  { folder, side }: Place,
  daemon: DaemonProcess,
  wire: Dialect,
): Promise<Helper> {
  const traffic: Traffic = {
    wire,
    types: [FLOOD_TYPE],
    payloadBytes: 64,
    period: periodFor(64, 1),
  };
  const common = { side: side.path, greets: "orchestrator", acks: undefined, traffic } as const;
  const flooder = writeLoad({
    ...common,
    name: join(folder, "f"),
    role: "producer",
    consumers: 1,
    spread: "copy",
  });
  const consumer = writeLoad({
    ...common,
    name: join(folder, "g"),
    role: "consumer",
    ackBytes: ACK_BYTES,
  });
  const links = [link(flooder.id, typeName(FLOOD_TYPE), consumer.id)];
  await runInstances(daemon, [flooder, consumer], links);
  return side.helper(flooder.plan.name);
}
