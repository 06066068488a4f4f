// A stage: load generators set up and connected, waiting for rounds of work.
//
//   ours    producer ──► orchestrator ──► consumer        both are instances that it started
//   bare    producer ──►  bare relay  ──► consumer        the same programs, the same bytes
//   direct  producer ─────────────────► consumer          how fast one of each is by itself

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";

import type { Dialect } from "../src/message.ts";
import { newInstanceId } from "../src/model.ts";
import type { Request } from "../src/protocol.ts";
import { buildPeriod, checksum, messageBytes, periodFor, type Traffic, typeName } from "./bytes.ts";
import { DaemonProcess } from "./daemon.ts";
import { ACK_BYTES, type LoadPlan, type RelayPlan, type Report } from "./plan.ts";
import type { Helper, SideChannel } from "./side.ts";

export type StageKind = "ours" | "bare" | "direct";

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
}

export interface Stage {
  /** Does `count` messages of each producer. @throws if a byte of the work is wrong */
  run(count: number): Promise<Round>;
  /** Compares the accounts with the work done, and returns how many messages were dropped. */
  audit(): Promise<number>;
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
  readonly from: Dialect;
  readonly to: Dialect;
  readonly payloadBytes: number;
  /** Whether all processes share one core, so that no sleeping core has to be woken. */
  readonly onOneCore: boolean;
  /** Instances and links that are registered beside, without traffic. */
  readonly idle: { readonly instances: number; readonly links: number };
}

/** A load generator that is to run. */
interface Load {
  readonly plan: LoadPlan;
  readonly id: string;
  /** The script that runs it: an orchestrator starts a path, without arguments. */
  readonly script: string;
  /** The bare relay's socket for it. */
  readonly socket: string;
}

/** What a consumer or asker must end up with. */
interface Expectation {
  readonly helper: Helper;
  readonly period: Buffer;
  readonly messageBytes: number;
  /** It gets one of so many messages of its producer. */
  readonly share: number;
}

const LOAD = join(import.meta.dir, "load.ts");
const RELAY = join(import.meta.dir, "relay.ts");
const ECHO_PERIOD = 1024;
const ROUND_MS = 20_000;
const CONNECT_MS = 20_000;
const PATH = process.env["PATH"] ?? "/usr/bin:/bin";

/** The words before a command that keep it, and what it starts, on one core; none if that cannot be done. */
export const ONE_CORE: readonly string[] = (() => {
  const taskset = Bun.which("taskset");
  if (taskset === null) return [];
  const core = /^Cpus_allowed_list:\s*([0-9]+)/m.exec(readFileSync("/proc/self/status", "utf8"));
  return core?.[1] === undefined ? [] : [taskset, "-c", core[1]];
})();

export class LoadStage implements Stage {
  readonly #place: Place;
  readonly #kind: StageKind;
  readonly #layout: Layout;
  readonly #typesEach: number;
  readonly #factor: number;
  readonly #processes: Bun.Subprocess[] = [];
  readonly #sources: Helper[] = [];
  readonly #expectations: Expectation[] = [];
  #daemon: DaemonProcess | undefined;
  #sent = 0;
  #arrived = 0;

  private constructor(place: Place, kind: StageKind, layout: Layout) {
    this.#place = place;
    this.#kind = kind;
    this.#typesEach = layout.spread === "split" ? layout.consumers : 1;
    // Only an orchestrator tells types apart and translates; the others carry the same bytes.
    const isSingle = kind === "direct" || layout.spread === "split";
    const consumers = isSingle ? 1 : layout.consumers;
    // Joined directly, one consumer gets as many messages as elsewhere all of them together.
    this.#factor = kind === "direct" && layout.spread === "copy" ? layout.consumers : 1;
    this.#layout = kind === "ours" ? layout : { ...layout, consumers, to: layout.from };
  }

  get #prefix(): readonly string[] {
    return this.#layout.onOneCore ? ONE_CORE : [];
  }

  /** Starts everything and waits until it is connected. */
  static async open(place: Place, kind: StageKind, layout: Layout): Promise<LoadStage> {
    mkdirSync(place.folder);
    const stage = new LoadStage(place, kind, layout);
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
    const { runtimes, routes } = await this.#daemon.info();
    const sum = (numbers: number[]): number => numbers.reduce((total, one) => total + one, 0);
    const accounts = Object.values(runtimes).map(({ messages }) => messages);
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
    for (const child of this.#processes) child.kill("SIGKILL");
    await Promise.all(this.#processes.map(({ exited }) => exited));
    await this.#daemon?.stop();
  }

  async #open(): Promise<void> {
    const { side } = this.#place;
    const sources: Load[] = [];
    const sinks: Load[] = [];
    const { pairs, consumers, pattern } = this.#layout;
    for (let pair = 0; pair < pairs; pair++) {
      sources.push(this.#load(pair, undefined));
      for (let i = 0; i < consumers; i++) sinks.push(this.#load(pair, i));
    }
    if (this.#kind === "ours") await this.#startInDaemon(sources, sinks);
    else if (this.#kind === "bare") await this.#startAtRelay(sources, sinks);
    else await this.#startDirect(sources, sinks);
    for (const { plan } of sources) this.#sources.push(await side.helper(plan.name));
    for (const [i, { plan }] of (pattern === "echo" ? sources : sinks).entries()) {
      const helper = await side.helper(plan.name);
      const isSplit = this.#kind === "ours" && this.#layout.spread === "split";
      const only = isSplit ? plan.traffic.types[i % consumers] : undefined;
      const period = buildPeriod(plan.traffic, only);
      const each = messageBytes(plan.traffic.dialect, plan.traffic.payloadBytes);
      this.#expectations.push({
        helper,
        period,
        messageBytes: each,
        share: isSplit ? consumers : 1,
      });
    }
    if (pattern === "echo") for (const { plan } of sinks) await side.helper(plan.name);
    await this.#untilDialectsAreKnown(sources.length + sinks.length);
  }

  /** The source of a pair, or one of its consumers. */
  #load(pair: number, consumer: number | undefined): Load {
    const { pattern, from, to, payloadBytes, consumers, spread } = this.#layout;
    const { folder, side } = this.#place;
    const isSource = consumer === undefined;
    const key = isSource ? `p${pair}` : `c${pair}.${consumer}`;
    const types = Array.from(
      { length: this.#typesEach },
      (_, i) => (pair * this.#typesEach + i) % 10,
    );
    const isEcho = pattern === "echo";
    const traffic: Traffic = {
      dialect: isSource ? from : to,
      types: isEcho ? [0] : types,
      payloadBytes,
      period: isEcho ? ECHO_PERIOD : periodFor(payloadBytes, types.length),
    };
    const direct = this.#kind === "direct" ? join(folder, `d${pair}`) : undefined;
    const ratio = messageBytes(to, payloadBytes) / messageBytes(from, payloadBytes);
    const plan: LoadPlan = {
      name: `${folder}/${key}`,
      role: isEcho ? (isSource ? "asker" : "echo") : isSource ? "producer" : "consumer",
      side: side.path,
      greets: this.#kind === "ours",
      connect: isSource ? direct : undefined,
      listen: isSource ? undefined : direct,
      traffic,
      acks: join(folder, `a${pair}`),
      ackBytes: ACK_BYTES * ratio,
      consumers,
      spread,
    };
    const file = join(folder, `${key}.json`);
    const script = join(folder, `${key}.sh`);
    writeFileSync(file, JSON.stringify(plan));
    const command = [process.execPath, LOAD, file].map((word) => `'${word}'`).join(" ");
    writeFileSync(script, `#!/bin/sh\nexec ${command}\n`, { mode: 0o700 });
    return { plan, id: newInstanceId(), script, socket: join(folder, `r${key}`) };
  }

  async #startInDaemon(sources: readonly Load[], sinks: readonly Load[]): Promise<void> {
    this.#daemon = await DaemonProcess.start(this.#place.folder, this.#prefix);
    const { idle, consumers, pattern, spread } = this.#layout;
    const all = [...sources, ...sinks];
    const requests: Request[] = all.map(({ id, script }) => add(id, script));
    const idleIds = Array.from({ length: idle.instances }, () => newInstanceId());
    for (const id of idleIds) requests.push(add(id, "/bin/true"));
    for (let i = 0; i < idle.links; i++) {
      const id = idleIds[i % idleIds.length] as string;
      requests.push(link(undefined, `bench::idle::Type${i % 1000}`, id));
    }
    for (const [i, sink] of sinks.entries()) {
      const source = sources[Math.floor(i / consumers)] as Load;
      if (pattern === "echo") {
        requests.push(link(source.id, typeName(0), sink.id), link(sink.id, typeName(0), source.id));
        continue;
      }
      const { types } = source.plan.traffic;
      const type = types[spread === "split" ? i % consumers : 0] as number;
      requests.push(link(undefined, typeName(type), sink.id));
    }
    for (const { id } of all) requests.push({ kind: "Start", id, priority: undefined });
    await this.#daemon.requestAll(requests);
  }

  async #startAtRelay(sources: readonly Load[], sinks: readonly Load[]): Promise<void> {
    const { consumers } = this.#layout;
    const name = `${this.#place.folder}/relay`;
    const routes = sources.map(({ socket }, pair) => ({
      from: socket,
      to: sinks.slice(pair * consumers, (pair + 1) * consumers).map((sink) => sink.socket),
    }));
    const plan: RelayPlan = { name, side: this.#place.side.path, routes };
    writeFileSync(`${name}.json`, JSON.stringify(plan));
    this.#spawn([process.execPath, RELAY, `${name}.json`]);
    await this.#place.side.helper(name);
    for (const { script, socket } of [...sources, ...sinks]) {
      this.#spawn([script], { VEECLE_IPC_SOCKET: socket });
    }
  }

  async #startDirect(sources: readonly Load[], sinks: readonly Load[]): Promise<void> {
    for (const { script } of sinks) this.#spawn([script]);
    for (const { plan } of sinks) await this.#place.side.helper(plan.name);
    for (const { script } of sources) this.#spawn([script]);
  }

  #spawn(cmd: string[], env: Record<string, string> = {}): void {
    const child = Bun.spawn({
      cmd: [...this.#prefix, ...cmd],
      env: { PATH, ...env },
      stdin: "ignore",
      stdout: "ignore",
      stderr: "inherit",
    });
    this.#processes.push(child);
  }

  /** An orchestrator attaches a consumer when it has read its greeting. */
  async #untilDialectsAreKnown(count: number): Promise<void> {
    if (this.#daemon === undefined) return;
    for (const deadline = performance.now() + CONNECT_MS; ; await Bun.sleep(10)) {
      const { runtimes } = await this.#daemon.info();
      const known = Object.values(runtimes).filter(({ dialect }) => dialect !== null);
      if (known.length === count) return;
      if (performance.now() > deadline) {
        throw new Error(`Only ${known.length} of ${count} instances have connected`);
      }
    }
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

function add(id: string, path: string): Request {
  return { kind: "Add", id, path, privileged: false };
}

function link(from: string | undefined, type: string, to: string): Request {
  return { kind: "Link", link: { from, typeName: type, to: { kind: "instance", id: to } } };
}

/** The middle of some numbers; of an even count the upper one of the two in the middle. */
export function median(numbers: readonly number[]): number {
  return numbers.toSorted((a, b) => a - b)[numbers.length >> 1] ?? Number.NaN;
}
