// A stage of telemetry: a pair of instances, and beside it two others that print lines.
//
//   ours    pacers ──► orchestrator ──► collector        the lines go the same way as the messages
//   bare    pacers ──►  bare relay  ──► collector        the same lines pass the orchestrator by
//
// A round has two parts. First the lines alone: what they cost whoever carries them. Then the pair at
// full speed beside them. What the lines cost the orchestrator's core the pair cannot have; the rest
// of that core is the measure of how fast it may be.

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { checksum, telemetryLine, telemetryObject } from "./bytes.ts";
import { DaemonProcess } from "./daemon.ts";
import { killAll, type Load, runInstances, spawn, writeLoad } from "./loads.ts";
import type { RelayPlan, Report } from "./plan.ts";
import type { Helper } from "./side.ts";
import {
  type Layout,
  LoadStage,
  type Place,
  type Round,
  type Stage,
  type StageKind,
} from "./stage.ts";
import { processorMs } from "./vitals.ts";

const LINE_BYTES = 220;
const LINES_PER_SECOND = 200_000;
const PACERS = 2;
const RELAY = join(import.meta.dir, "relay.ts");
const DRAIN_MS = 10_000;

type Streams = NonNullable<Report["streams"]>;

export class TelemetryStage implements Stage {
  readonly #place: Place;
  readonly #aloneMs: number;
  readonly #processes: Bun.Subprocess[] = [];
  readonly #pacers: Helper[] = [];
  #daemon: DaemonProcess | undefined;
  #pair: LoadStage | undefined;
  #collector: Helper | undefined;
  /** What arrives for each line that is printed. */
  #line: Buffer = telemetryLine(LINE_BYTES);
  /** Who carries the lines. */
  #carrier = 0;
  #lines = 0;

  private constructor(place: Place, aloneMs: number) {
    this.#place = place;
    this.#aloneMs = aloneMs;
  }

  static async open(
    place: Place,
    kind: StageKind,
    layout: Layout,
    aloneMs: number,
  ): Promise<TelemetryStage> {
    mkdirSync(place.folder);
    const stage = new TelemetryStage(place, aloneMs);
    try {
      await stage.#open(kind, layout);
    } catch (error) {
      await stage.close();
      throw error;
    }
    return stage;
  }

  async run(count: number): Promise<Round> {
    const before = processorMs(this.#carrier);
    const beganAt = performance.now();
    this.#start();
    await Bun.sleep(this.#aloneMs);
    const alone = await this.#halt();
    const aloneMs = performance.now() - beganAt;
    const costMs = processorMs(this.#carrier) - before;
    this.#start();
    const round = await (this.#pair as LoadStage).run(count);
    await this.#halt();
    const isOurs = this.#carrier === this.#daemon?.pid;
    return {
      ...round,
      lineNs: (costMs * 1e6) / alone,
      coreLeft: isOurs ? 1 - costMs / aloneMs : 1,
    };
  }

  async audit(): Promise<number> {
    const streams = await this.#untilAllHaveCome();
    for (const { bytes, crc } of streams) {
      const wanted = checksum(this.#line, bytes);
      if (crc !== wanted) throw new Error(`Telemetry came with checksum ${crc}, not ${wanted}`);
    }
    const { telemetry } = await (this.#daemon as DaemonProcess).info();
    if (telemetry !== null && telemetry.sent !== this.#lines) {
      throw new Error(`The accounts say ${JSON.stringify(telemetry)} of ${this.#lines} lines`);
    }
    return 0;
  }

  note(): string {
    return `${this.#lines.toLocaleString("en")} lines of ${LINE_BYTES} bytes, all taken`;
  }

  async close(): Promise<void> {
    await this.#pair?.close();
    await this.#daemon?.stop();
    await killAll(this.#processes);
  }

  async #open(kind: StageKind, layout: Layout): Promise<void> {
    const { folder, side } = this.#place;
    const collector = writeLoad({ name: join(folder, "t"), side: side.path, role: "collector" });
    this.#processes.push(spawn([collector.script]));
    this.#collector = await side.helper(collector.plan.name);
    const { port = 0 } = await this.#collector.ask({ kind: "status" });
    const isOurs = kind === "ours";
    const args = isOurs ? ["--telemetry-socket", `127.0.0.1:${port}`] : [];
    const daemon = await DaemonProcess.start(folder, { args });
    this.#daemon = daemon;
    const place = { folder: join(folder, "pair"), side };
    this.#pair = await LoadStage.open(place, "orchestrator", layout, daemon);
    const pacers = Array.from({ length: PACERS }, (_, i) =>
      writeLoad({
        name: join(folder, `l${i}`),
        side: side.path,
        role: "pacer",
        lineBytes: LINE_BYTES,
        linesPerSecond: LINES_PER_SECOND / PACERS,
      }),
    );
    if (isOurs) {
      this.#carrier = daemon.pid;
      this.#line = telemetryObject(this.#line);
      await runInstances(daemon, pacers, []);
    } else this.#carrier = await this.#relay(folder, side.path, pacers, port);
    for (const { plan } of pacers) this.#pacers.push(await side.helper(plan.name));
  }

  /** Has the bare relay carry the lines, and returns its pid. */
  async #relay(
    folder: string,
    side: string,
    pacers: readonly Load[],
    port: number,
  ): Promise<number> {
    const name = join(folder, "relay");
    const socket = ({ plan }: Load): string => `${plan.name}.s`;
    const routes = pacers.map((pacer) => ({ from: socket(pacer), to: [port] }));
    const plan: RelayPlan = { name, side, routes };
    writeFileSync(`${name}.json`, JSON.stringify(plan));
    const relay = spawn([process.execPath, RELAY, `${name}.json`]);
    this.#processes.push(relay);
    await this.#place.side.helper(name);
    for (const pacer of pacers) {
      this.#processes.push(spawn([pacer.script], { VEECLE_IPC_SOCKET: socket(pacer) }));
    }
    return relay.pid;
  }

  #start(): void {
    for (const pacer of this.#pacers) pacer.tell({ kind: "flood" });
  }

  /** Ends the lines, and returns how many there were since the start. */
  async #halt(): Promise<number> {
    const reports = await Promise.all(this.#pacers.map((pacer) => pacer.ask({ kind: "halt" })));
    const lines = reports.reduce((sum, { bytes = 0 }) => sum + bytes / LINE_BYTES, 0);
    this.#lines += lines;
    return lines;
  }

  async #untilAllHaveCome(): Promise<Streams> {
    const wanted = this.#lines * this.#line.length;
    for (const deadline = performance.now() + DRAIN_MS; ; await Bun.sleep(10)) {
      const { streams = [] } = await (this.#collector as Helper).ask({ kind: "status" });
      const bytes = streams.reduce((sum, stream) => sum + stream.bytes, 0);
      if (bytes === wanted) return streams;
      if (performance.now() < deadline) continue;
      throw new Error(`The collector got ${bytes} bytes of telemetry instead of ${wanted}`);
    }
  }
}
