// A stage: load generators set up and connected, waiting for rounds of work.
//
//   ours    producer ──► orchestrator ──► consumer        both are instances that it started
//   bare    producer ──►  bare relay  ──► consumer        the same programs, the same bytes
//   direct  producer ─────────────────► consumer          how fast one of each is by itself

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";

import { newInstanceId } from "../src/model.ts";
import type { Request } from "../src/protocol.ts";
import {
  buildPeriod,
  checksum,
  messageBytes,
  periodFor,
  type Traffic,
  typeName,
  type Wire,
} from "./bytes.ts";
import { DaemonProcess } from "./daemon.ts";
import {
  add,
  killAll,
  link,
  type Load,
  ONE_CORE,
  runInstances,
  spawn,
  writeLoad,
} from "./loads.ts";
import { type NatsServer, startNats } from "./nats.ts";
import {
  ACK_BYTES,
  type AskerPlan,
  type ConsumerPlan,
  type EchoPlan,
  type ProducerPlan,
  type RelayPlan,
  type Report,
} from "./plan.ts";
import type { Helper, SideChannel } from "./side.ts";

/** Which column of the table a stage is for. */
export type StageKind = "ours" | "bare" | "direct";

/** What stands between the load generators. */
export type Between = "orchestrator" | "relay" | "nats-server" | "nothing";

/** What one round did. */
export interface Round {
  readonly elapsedMs: number;
  /** Messages that arrived (or round trips, or starts). */
  readonly count: number;
  readonly bytes: number;
  /** Checksum over the checksums of all consumers. */
  readonly crc: number;
  /** Median and 99th percentile of the round trips, in microseconds. */
  readonly p50: number;
  readonly p99: number;
  /** The 99th percentile of control requests in the meantime, in milliseconds. */
  readonly controlMs?: number;
  /** Processor time for each line of telemetry, in nanoseconds. */
  readonly lineNs?: number;
  /** Share of a core that telemetry leaves to the daemon. */
  readonly coreLeft?: number;
  /** How far the resident size has moved, in MiB. */
  readonly driftMiB?: number;
  /** Until a process that was killed was known to have ended. */
  readonly noticedMs?: number;
  /** Of a program at rest: wakeups in a minute, share of a core, resident size. */
  readonly wakeups?: number;
  readonly busyPercent?: number;
  readonly residentMiB?: number;
}

export interface Stage {
  /** Does `count` messages of each producer. @throws if a byte of the work is wrong */
  run(count: number): Promise<Round>;
  /** Compares the accounts with the work done, and returns how many messages were dropped. */
  audit(): Promise<number>;
  /** What else there is to say about the rounds. */
  note?(): string;
  close(): Promise<void>;
}

/** Where a stage is set up. */
export interface Place {
  readonly folder: string;
  readonly side: SideChannel;
}

/** Who sends what to whom. */
export interface Layout {
  readonly pattern: "stream" | "echo";
  /** Producers or askers. */
  readonly pairs: number;
  /** Consumers of each producer. */
  readonly consumers: number;
  /** Whether each consumer gets everything, or one type of message each. */
  readonly spread: "copy" | "split";
  readonly from: Wire;
  readonly to: Wire;
  readonly payloadBytes: number;
  /** Number of the first type that is sent. */
  readonly firstType: number;
  /** Between two questions of an asker. */
  readonly pauseMs: number;
  /** Whether all processes share one core, so that no sleeping core has to be woken. */
  readonly onOneCore: boolean;
  /** Instances and links that are registered beside, without traffic. */
  readonly idle: { readonly instances: number; readonly links: number };
}

type TrafficLoad = Load<ProducerPlan | ConsumerPlan | AskerPlan | EchoPlan>;

/** What a consumer or asker must end up with. */
interface Expectation {
  readonly helper: Helper;
  readonly period: Buffer;
  readonly messageBytes: number;
  /** It gets one of so many messages of its producer. */
  readonly share: number;
}

const RELAY = join(import.meta.dir, "relay.ts");
const ECHO_PERIOD = 1024;
const ROUND_MS = 20_000;

export class LoadStage implements Stage {
  readonly #place: Place;
  readonly #between: Between;
  readonly #layout: Layout;
  readonly #typesEach: number;
  readonly #factor: number;
  readonly #processes: Bun.Subprocess[] = [];
  readonly #sources: Helper[] = [];
  readonly #expectations: Expectation[] = [];
  #daemon: DaemonProcess | undefined;
  /** If it is nobody else's. */
  #ownDaemon: DaemonProcess | undefined;
  #nats: NatsServer | undefined;
  /** Of its instances. */
  #ids: ReadonlySet<string> = new Set();
  #sent = 0;
  #arrived = 0;

  private constructor(place: Place, between: Between, layout: Layout, daemon?: DaemonProcess) {
    this.#place = place;
    this.#between = between;
    this.#daemon = daemon;
    this.#typesEach = layout.spread === "split" ? layout.consumers : 1;
    // Only an orchestrator tells types apart and translates; the others carry the same bytes.
    const isSingle = between === "nothing" || layout.spread === "split";
    const consumers = isSingle ? 1 : layout.consumers;
    // Joined directly, one consumer gets as many messages as elsewhere all of them together.
    this.#factor = between === "nothing" && layout.spread === "copy" ? layout.consumers : 1;
    const isDumb = between === "nothing" || between === "relay";
    this.#layout = isDumb ? { ...layout, consumers, to: layout.from } : layout;
  }

  get #prefix(): readonly string[] {
    return this.#layout.onOneCore ? ONE_CORE : [];
  }

  /** Starts everything, if need be a daemon too, and waits until it is connected. */
  static async open(
    place: Place,
    between: Between,
    layout: Layout,
    daemon?: DaemonProcess,
  ): Promise<LoadStage> {
    mkdirSync(place.folder);
    const stage = new LoadStage(place, between, layout, daemon);
    try {
      await stage.#open();
    } catch (error) {
      await stage.close();
      throw error;
    }
    return stage;
  }

  async run(work: number): Promise<Round> {
    const count = work * this.#factor;
    const isEcho = this.#layout.pattern === "echo";
    if (!isEcho) await Promise.all(this.#expectations.map((one) => arm(one, count)));
    const startedAt = performance.now();
    const length = messageBytes(this.#layout.from, this.#layout.payloadBytes);
    for (const source of this.#sources) {
      source.tell(isEcho ? { kind: "ask", count } : { kind: "send", bytes: count * length });
    }
    const reports = await Promise.all(this.#expectations.map(({ helper }) => outcome(helper)));
    const elapsedMs = performance.now() - startedAt;
    this.#sent += count * this.#sources.length;
    let bytes = 0;
    let crc = 0;
    let messages = 0;
    for (const [i, { period, messageBytes: each, share }] of this.#expectations.entries()) {
      const report = reports[i] as Report;
      const wanted = (count / share) * each;
      if (report.bytes !== wanted || report.crc !== checksum(period, wanted)) {
        throw new Error(
          `${report.name} got ${report.bytes} bytes with checksum ${report.crc}, ` +
            `instead of ${wanted} with ${checksum(period, wanted)}`,
        );
      }
      bytes += wanted;
      messages += count / share;
      crc = crc32(String(report.crc), crc);
    }
    this.#arrived += messages;
    if (!isEcho) await Promise.all(this.#sources.map((source) => source.next(ROUND_MS)));
    const p50 = median(reports.map((report) => report.p50 ?? 0));
    const p99 = median(reports.map((report) => report.p99 ?? 0));
    return { elapsedMs, count: messages, bytes, crc, p50, p99 };
  }

  async audit(): Promise<number> {
    if (this.#daemon === undefined) return 0;
    const info = await this.#daemon.info();
    const routes = info.routes.filter(({ from }) => from !== null && this.#ids.has(from));
    const sum = (numbers: number[]): number => numbers.reduce((total, one) => total + one, 0);
    const accounts = [...this.#ids].flatMap((id) => info.runtimes[id]?.messages ?? []);
    const found = {
      received: sum(accounts.map(({ received }) => received)),
      astray: sum(accounts.map(({ unlinked, refused }) => unlinked + refused)),
      routed: sum(routes.map(({ routed }) => routed)),
      delivered: sum(routes.map(({ delivered }) => delivered)),
      queued: sum(routes.map(({ queued }) => queued)),
    };
    const dropped = sum(routes.map((route) => sum(Object.values(route.dropped))));
    const ways = this.#layout.pattern === "echo" ? 2 : 1;
    const arrived = ways * this.#arrived;
    const wanted = {
      received: ways * this.#sent,
      astray: 0,
      routed: arrived + dropped,
      delivered: arrived,
      queued: 0,
    };
    if (!Bun.deepEquals(found, wanted)) {
      const text = (value: object): string => JSON.stringify(value);
      throw new Error(`The accounts say ${text(found)}, the work was ${text(wanted)}`);
    }
    return dropped;
  }

  async close(): Promise<void> {
    await killAll(this.#processes);
    await this.#ownDaemon?.stop();
  }

  async #open(): Promise<void> {
    const { side } = this.#place;
    const sources: TrafficLoad[] = [];
    const sinks: TrafficLoad[] = [];
    const { pairs, consumers, pattern } = this.#layout;
    if (this.#between === "nats-server") {
      this.#nats = await startNats(this.#place.folder);
      this.#processes.push(this.#nats.process);
    }
    for (let pair = 0; pair < pairs; pair++) {
      sources.push(this.#load(pair, undefined));
      for (let i = 0; i < consumers; i++) sinks.push(this.#load(pair, i));
    }
    if (this.#between === "orchestrator") await this.#startInDaemon(sources, sinks);
    else if (this.#between === "relay") await this.#startAtRelay(sources, sinks);
    else await this.#startConsumersFirst(sources, sinks);
    for (const { plan } of sources) this.#sources.push(await side.helper(plan.name));
    for (const [i, { plan }] of (pattern === "echo" ? sources : sinks).entries()) {
      const helper = await side.helper(plan.name);
      const isSplit = this.#between === "orchestrator" && this.#layout.spread === "split";
      const only = isSplit ? plan.traffic.types[i % consumers] : undefined;
      this.#expectations.push({
        helper,
        period: buildPeriod(plan.traffic, only),
        messageBytes: messageBytes(plan.traffic.wire, plan.traffic.payloadBytes),
        share: isSplit ? consumers : 1,
      });
    }
    if (pattern === "echo") for (const { plan } of sinks) await side.helper(plan.name);
  }

  /** The source of a pair, or one of its consumers. */
  #load(pair: number, consumer: number | undefined): TrafficLoad {
    const { pattern, from, to, payloadBytes, consumers, spread, pauseMs } = this.#layout;
    const { folder, side } = this.#place;
    const isSource = consumer === undefined;
    const name = join(folder, isSource ? `p${pair}` : `c${pair}.${consumer}`);
    const first = this.#layout.firstType + pair * this.#typesEach;
    const types = Array.from({ length: this.#typesEach }, (_, i) => (first + i) % 10);
    const traffic: Traffic = {
      wire: isSource ? from : to,
      types,
      payloadBytes,
      period: pattern === "echo" ? ECHO_PERIOD : periodFor(payloadBytes, types.length),
    };
    const direct = this.#between === "nothing" ? join(folder, `d${pair}`) : undefined;
    const common = {
      name,
      side: side.path,
      greets:
        this.#between === "orchestrator" || this.#between === "nats-server"
          ? this.#between
          : undefined,
      connect: this.#nats?.port ?? (isSource ? direct : undefined),
      listen: isSource ? undefined : direct,
      traffic,
    } as const;
    if (pattern === "echo") {
      return writeLoad(
        isSource ? { ...common, role: "asker", pauseMs } : { ...common, role: "echo" },
      );
    }
    const acks = join(folder, `a${pair}`);
    if (isSource) return writeLoad({ ...common, role: "producer", acks, consumers, spread });
    const ratio = messageBytes(to, payloadBytes) / messageBytes(from, payloadBytes);
    return writeLoad({ ...common, role: "consumer", acks, ackBytes: ACK_BYTES * ratio });
  }

  async #startInDaemon(
    sources: readonly TrafficLoad[],
    sinks: readonly TrafficLoad[],
  ): Promise<void> {
    this.#daemon ??= this.#ownDaemon = await DaemonProcess.start(this.#place.folder, {
      prefix: this.#prefix,
    });
    const { idle, consumers, pattern } = this.#layout;
    const idleIds = Array.from({ length: idle.instances }, () => newInstanceId());
    await this.#daemon.requestAll(idleIds.map((id) => add(id, "/bin/true")));
    const links: Request[] = [];
    for (let i = 0; i < idle.links; i++) {
      const id = idleIds[i % idleIds.length] as string;
      links.push(link(undefined, `bench::idle::Type${i % 1000}`, id));
    }
    for (const [i, sink] of sinks.entries()) {
      const source = sources[Math.floor(i / consumers)] as TrafficLoad;
      const { types } = source.plan.traffic;
      const type = typeName(types[i % types.length] as number);
      links.push(link(source.id, type, sink.id));
      if (pattern === "echo") links.push(link(sink.id, type, source.id));
    }
    const loads = [...sources, ...sinks];
    this.#ids = new Set(loads.map(({ id }) => id));
    await runInstances(this.#daemon, loads, links);
  }

  async #startAtRelay(
    sources: readonly TrafficLoad[],
    sinks: readonly TrafficLoad[],
  ): Promise<void> {
    const { consumers } = this.#layout;
    const name = join(this.#place.folder, "relay");
    const socket = ({ plan }: Load): string => `${plan.name}.s`;
    const routes = sources.map((source, pair) => ({
      from: socket(source),
      to: sinks.slice(pair * consumers, (pair + 1) * consumers).map(socket),
    }));
    const plan: RelayPlan = { name, side: this.#place.side.path, routes };
    writeFileSync(`${name}.json`, JSON.stringify(plan));
    this.#spawn([process.execPath, RELAY, `${name}.json`]);
    await this.#place.side.helper(name);
    for (const load of [...sources, ...sinks]) {
      this.#spawn([load.script], { VEECLE_IPC_SOCKET: socket(load) });
    }
  }

  /** Consumers first: who listens, or has subscribed, misses nothing. */
  async #startConsumersFirst(
    sources: readonly TrafficLoad[],
    sinks: readonly TrafficLoad[],
  ): Promise<void> {
    for (const { script } of sinks) this.#spawn([script]);
    for (const { plan } of sinks) await this.#place.side.helper(plan.name);
    for (const { script } of sources) this.#spawn([script]);
  }

  #spawn(cmd: string[], env: Record<string, string> = {}): void {
    this.#processes.push(spawn(cmd, env, this.#prefix));
  }
}

/** What has come when all has, or when nothing more is to be expected. */
function outcome(helper: Helper): Promise<Report> {
  return helper.next(ROUND_MS).catch(() => helper.ask({ kind: "status" }));
}

async function arm(
  { helper, messageBytes: each, share }: Expectation,
  count: number,
): Promise<void> {
  await helper.ask({ kind: "arm", bytes: (count / share) * each });
}

/** The middle of some numbers; of an even count the upper one of the two in the middle. */
export function median(numbers: readonly number[]): number {
  return numbers.toSorted((a, b) => a - b)[numbers.length >> 1] ?? Number.NaN;
}
