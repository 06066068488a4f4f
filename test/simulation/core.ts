// The whole core in one small system in memory: control clients, instances, a telemetry server, a disk, a
// clock, and a daemon that is killed now and then and followed by another one.
//
//   clients, guests ──► wires ──► Life (control, ports, router, supervisors, memory) ──► ledger
//                                                  what may be, say Traffic and Judge
//
// What happens, and when, is in `happenings.ts`; here is how the parts are put together, and what must
// be so in between.

import type { SpawnRequest } from "../../src/host.ts";
import { DESCRIPTORS_SCARCE_MS, KILL_WAIT_MS } from "../../src/limits.ts";
import { MARK_VARIABLE } from "../../src/host/processes.ts";
import type { Exit, InstanceId } from "../../src/model.ts";
import type { Info } from "../../src/protocol/info.ts";
import type { Accept } from "../../src/socket.ts";
import { recover } from "../../src/supervisor/recovery.ts";
import { dieOf, FakeHost, type FakeProcess } from "../support/host.ts";
import type { Random } from "../support/random.ts";
import { Asks } from "./asks.ts";
import { Client } from "./client.ts";
import { Guest } from "./guest.ts";
import { Judge } from "./judge.ts";
import { Ledger } from "./ledger.ts";
import { type Faults, Life, MAX_DESCRIPTOR } from "./life.ts";
import { TelemetryServer } from "./telemetry.ts";
import { Traffic } from "./traffic.ts";
import { Wire, type WireOptions } from "./wire.ts";

/** What happened is kept, for a single seed. */
const IS_TRACED = process.env["TEST_SEED"] !== undefined;

/** The most timers at once: a few for each instance, link, client and process. */
const MAX_TIMERS = 400;

/** A host that tells of every end before the daemon hears of it. */
class WatchedHost extends FakeHost {
  onEnd: (process: FakeProcess) => void = () => {};
  onTold: (request: SpawnRequest) => void = () => {};

  /** Until nothing is left to do but what waits for the clock. */
  override settle(): Promise<void> {
    return new Promise((resolve) => void setImmediate(resolve));
  }

  override spawn(request: SpawnRequest): ReturnType<FakeHost["spawn"]> {
    return super.spawn({
      ...request,
      onExit: (exit) => {
        this.onTold(request);
        request.onExit(exit);
      },
    });
  }

  override end(process: FakeProcess, exit: Exit): void {
    if (!process.isAlive) return;
    super.end(process, exit);
    this.onEnd(process);
  }
}

export class Core {
  protected readonly random: Random;
  protected readonly host: WatchedHost = new WatchedHost();
  protected readonly faults: Faults = {
    isFull: false,
    isRefusing: false,
    isOut: false,
    creepMs: 0,
  };
  protected readonly asks: Asks;
  protected readonly ledger: Ledger;
  protected readonly judge: Judge;
  protected readonly traffic: Traffic;
  protected life: Life;
  protected clients: Client[] = [];
  protected guests: Guest[] = [];
  protected readonly telemetry: TelemetryServer;
  protected strangers: FakeProcess[] = [];
  /** What a daemon reads at once. */
  protected readonly chunkBytes: number;
  readonly #isExact: boolean;
  readonly #maxQueueBytes: number | undefined;
  readonly #stored: Set<string> = new Set();
  /** By its mark: whose each run is, and how often that one had been added. */
  readonly #runs: Map<string, { readonly id: InstanceId; readonly added: number }> = new Map();
  readonly #added: Map<InstanceId, number> = new Map();
  #lives = 0;
  /** How often the machine was started again, and before which of the daemons. */
  #boot = 0;
  readonly #boots: Map<string, number> = new Map();
  /** Clients that came a moment ago when descriptors were scarce: others may be sent away, too. */
  #scarce = 0;
  readonly #trace: string[] = [];
  #fault: Error | undefined;

  constructor(random: Random) {
    this.random = random;
    this.asks = new Asks(random, random.int(2, 4));
    this.#isExact = random.chance(0.85);
    this.chunkBytes = this.#isExact ? 2_048 : 20_000;
    this.#maxQueueBytes = random.chance(0.2) ? random.int(50, 1_500) : undefined;
    const demand = this.demand.bind(this);
    this.ledger = new Ledger({
      onWrite: (what) => {
        this.note("writes", what);
        this.judge.written(what);
      },
      onAdd: (id) => {
        this.#added.set(id, this.#additions(id) + 1);
        this.traffic.added(id);
      },
      onLink: (name, { settings }) => this.traffic.linked(name, settings),
      onForget: () => this.traffic.leaving(this.life.orchestrator.links.info()),
      onCommit: () => {
        this.note("commits", this.ledger.commits);
        this.traffic.left();
      },
      stall: () => {
        if (random.chance(0.05)) this.host.stall(random.size(1, 500));
      },
      disk: random.chance(0.5) ? (settled) => this.#disk(settled) : undefined,
    });
    this.judge = new Judge({
      ledger: this.ledger,
      lives: (id) => this.lives(id),
      isWanted: (id) => ["running", "waiting"].includes(this.info().runtimes[id]?.state ?? ""),
      demand,
    });
    this.traffic = new Traffic({
      maxQueueBytes: this.#maxQueueBytes,
      isExact: this.#isExact,
      links: () => this.ledger.next.links,
      demand,
    });
    this.telemetry = new TelemetryServer(demand);
    const { host } = this;
    host.pidRestMs = 250;
    host.exitDelayMs = random.pick([0, 0, 1, 7]);
    host.snapshotMs = random.pick([0, 0, 1, 6]);
    host.onSpawn = (process) => this.#born(process);
    host.onTold = (request) => this.#told(request);
    host.onEnd = (process) => this.#died(process);
    this.life = this.#newLife();
  }

  /** Takes a moment, and sometimes long; a daemon that was killed meanwhile never hears of it. */
  #disk(settled: (fault?: Error) => void): void {
    const { host, life, random, faults } = this;
    host.after(random.chance(0.1) ? random.size(1, 2_000) : 1, () => {
      if (life.isOver) return;
      const isRefused = faults.isRefusing && random.chance(0.7);
      settled(
        isRefused ? Object.assign(new Error("input/output error"), { code: "EIO" }) : undefined,
      );
    });
  }

  /**
   * The daemon is killed, its guard ends what it has started or cannot, and another one takes over. Or
   * the machine stops, with everything that runs on it.
   */
  async kill(): Promise<void> {
    const { host, life } = this;
    await this.settle();
    this.note("killed");
    life.isOver = true;
    for (const { wire } of [...this.clients, ...this.guests]) wire?.kill();
    this.telemetry.wire?.kill();
    this.clients = [];
    this.guests = [];
    this.judge.forget();
    const isCut = this.random.chance(0.3);
    if (isCut) this.#cutPower();
    this.ledger.reopen();
    if (!isCut && this.random.chance(0.6)) {
      for (const { mark, group, isAlive } of host.table) {
        if (mark !== undefined && isAlive) host.signalGroup(group, "SIGKILL");
      }
    }
    const runs = this.#recorded().map((run) => ({ ...run, bootId: this.#bootOf(run.mark) }));
    let left: number | undefined;
    const former = { runId: life.runId, runs, bootId: String(this.#boot) };
    void recover(host, former, KILL_WAIT_MS).then((found) => (left = found.length));
    await host.run(KILL_WAIT_MS + 500);
    this.demand(left === 0, "a daemon ends what the one before has started", left);
    const alive = host.table.filter(({ mark, isAlive }) => mark !== undefined && isAlive);
    this.demand(alive.length === 0, "nothing of an earlier daemon is left", alive[0]?.pid);
    this.begin();
    await this.settle();
    this.compare();
    for (const { id, wanted } of this.ledger.durable.instances.values()) {
      const isStarted = [...this.#runs].some(
        ([mark, run]) => run.id === id && mark.startsWith(`${this.life.runId}.`),
      );
      // One whose uploaded program has to be looked at is started later.
      if (isStarted) this.demand(wanted, `${id} is started again only if it was meant to run`);
    }
  }

  /** Nothing is left but what the disk has, and somebody else may pass for each that was recorded. */
  #cutPower(): void {
    const { host, ledger, random } = this;
    this.note("power cut");
    this.#boot++;
    for (const process of host.table) process.exit({ signal: "SIGKILL" });
    ledger.cut(random.int(0, ledger.unsynced));
    this.strangers = this.#recorded().map(({ pid, startTicks }) => host.stranger(pid, startTicks));
  }

  /** Processes that the state tells of. */
  #recorded() {
    return [...this.ledger.durable.instances.values()].flatMap(({ run }) => run ?? []);
  }

  /** The boot of the machine in which a run was started, as the daemon would have written it down. */
  #bootOf(mark: string): string {
    return String(this.#boots.get(mark.slice(0, mark.indexOf("."))));
  }

  /** Another daemon begins with what is durable. */
  protected begin(): void {
    const { durable } = this.ledger;
    this.faults.isOut = false;
    this.traffic.restarted(durable);
    this.telemetry.restarted();
    this.life = this.#newLife();
    this.life.restore(durable);
  }

  /** Waits until nothing happens any more without the clock. */
  async settle(): Promise<void> {
    await this.host.settle();
  }

  // Who connects.

  protected openClient(descriptor: number): Client {
    const { random, asks, judge } = this;
    const client = new Client({
      random,
      asks,
      delivered: (ask) => {
        this.note("asks", ask.text);
        judge.delivered(ask);
      },
      answered: (ask, response) => {
        this.note("answers", ask.text.slice(0, 60), JSON.stringify(response).slice(0, 200));
        judge.answered(ask, response);
      },
      demand: this.demand.bind(this),
    });
    if (descriptor >= MAX_DESCRIPTOR) this.#scarce++;
    client.isTurnedAway = this.#scarce > 0;
    if (client.isTurnedAway) {
      for (const other of this.clients) if (!other.hasAsked) other.isTurnedAway = true;
    }
    this.clients.push(client);
    this.note("connects", client.dialect, descriptor);
    const origin = random.chance(0.5)
      ? {}
      : { origin: { kind: "unix", credentials: undefined } as const };
    client.wire = this.#wire({
      peer: "client",
      descriptor,
      ...origin,
      onTaken: (bytes) => client.take(bytes),
      onDeliver: (bytes) => client.delivering(bytes),
      onClose: (isOurs) => {
        if (isOurs) client.ended();
      },
      accept: (connection) => this.life.server.accept(connection),
    });
    if (descriptor >= MAX_DESCRIPTOR) {
      this.host.after(DESCRIPTORS_SCARCE_MS, () => this.#scarce--); // behind that of the daemon
    }
    if (client.wire.isFinished) client.turnedAway();
    return client;
  }

  /** A process connects to the socket of an instance; undefined: there is none any more. */
  protected openGuest(
    id: InstanceId,
    path: string,
    process: FakeProcess,
    leader: FakeProcess = process,
  ): Guest | undefined {
    const accept = this.life.listeners.get(path);
    if (accept === undefined) return undefined;
    const { random, traffic, telemetry } = this;
    const guest = new Guest({
      random,
      id,
      process,
      leader,
      traffic,
      anyId: () => this.asks.anyId(),
      nextLine: () => telemetry.next(id),
      lineRead: () => telemetry.read++,
      demand: this.demand.bind(this),
    });
    const isOurs = process.mark !== undefined && this.#runs.get(process.mark)?.id === id;
    const isSecond = this.guests.some(
      (other) => other.id === id && !other.isIntruder && other.wire?.isClosed === false,
    );
    guest.isIntruder = !isOurs || isSecond;
    this.note("guest", id.slice(-1), guest.dialect, process.pid, guest.isIntruder);
    guest.wire = this.#wire({
      peer: "guest",
      origin: { kind: "unix", credentials: { pid: process.pid, uid: 1, gid: 1 } },
      onTaken: (bytes) => guest.take(bytes),
      onDeliver: (bytes) => guest.delivering(bytes),
      onClose: (_isOurs, isTold) => {
        if (isTold) guest.ended();
      },
      accept,
    });
    guest.note = (what) => this.note(id.slice(-1), what);
    this.demand(!guest.isIntruder || guest.wire.isClosed, "an intruder is sent away", id);
    if (!guest.isIntruder) this.demand(!guest.wire.isClosed, "an instance is let in", id);
    this.guests.push(guest);
    return guest;
  }

  #wire({ accept, ...options }: Partial<WireOptions> & WireEnds & { accept: Accept }): Wire {
    const { random, host } = this;
    const onFault = (error: unknown): void => this.demand(false, "no handler throws", error);
    return new Wire({ random, after: host.after, onFault, ...options }, accept);
  }

  // What must be so.

  /** Whether a process of an instance lives. */
  protected lives(id: InstanceId): boolean {
    return this.host.table.some(
      ({ mark, isAlive }) => isAlive && mark !== undefined && this.#runs.get(mark)?.id === id,
    );
  }

  /** Whether a process is that of an instance that is registered now. */
  protected isCurrent({ mark = "" }: FakeProcess): boolean {
    const run = this.#runs.get(mark);
    return run !== undefined && run.added === this.#additions(run.id);
  }

  protected info(): Info {
    return JSON.parse(this.life.orchestrator.info().pieces.join(""));
  }

  /** Cheap enough for every step. @throws if a promise is broken */
  protected check(): void {
    const { life, host } = this;
    this.traffic.check(life.orchestrator.links.info());
    this.telemetry.check(life.telemetry, this.#isExact);
    this.demand(host.timers < MAX_TIMERS, "timers are bounded", host.timers);
    for (const { signals, pid } of this.strangers) {
      this.demand(signals.length === 0, "nobody else is signalled", pid);
    }
    const leaders = new Map(
      host.processes.flatMap((one) => {
        const id = one.request?.env["VEECLE_RUNTIME_ID"];
        return one.isAlive && id !== undefined ? [[id, one] as const] : [];
      }),
    );
    for (const { id, leader, isIntruder, wire } of this.guests) {
      const isLeft = leaders.has(id) && leaders.get(id) !== leader && !isIntruder;
      this.demand(!isLeft || wire?.isClosed === true, `${id} speaks for itself alone`);
    }
    this.judged();
  }

  /** @throws what was not so */
  protected judged(): void {
    if (this.#fault !== undefined) throw this.#fault;
  }

  /** Holds what the daemon says of itself against what is written. */
  protected compare(isQuiet: boolean = false): void {
    const info = this.info();
    const { instances, links } = this.ledger.next;
    const here = Object.entries(info.runtimes).map(([id, one]) => `${id} ${one.name} ${one.args}`);
    const there = [...instances.values()].map(
      ({ id, settings: { name, args } }) => `${id} ${name} ${args}`,
    );
    this.demand(same(here, there), `there are the instances ${there}`, here);
    const routes = info.routes.map(
      ({ from, type_name, to, owner }) => `${from ?? "any"} ${type_name} ${to} ${owner}`,
    );
    const rows = [...links].map(([name, { settings }]) => `${name} ${settings.owner}`);
    this.demand(same(routes, rows), `there are the links ${rows}`, routes);
    for (const [id, { messages, held }] of Object.entries(info.runtimes)) {
      const { received, unlinked, refused } = messages;
      if (this.#isExact || isQuiet) {
        this.demand(received === this.traffic.received(id), `${id} has sent so much`, received);
      }
      if (this.#isExact) {
        const routed = this.traffic.routed(id);
        this.demand(received === routed + unlinked + refused, `${id}: ${routed} routed`, messages);
      }
      const isFull = info.routes.some(({ on_full, queued }) => on_full === "block" && queued > 0);
      this.demand(!held || isFull, "who is held back waits for room", id);
    }
    this.judged();
  }

  /** Remembers what is not so; thrown later, since the daemon may catch what its doors throw. */
  protected demand(isSo: boolean, what: string, found?: unknown): void {
    if (isSo || this.#fault !== undefined) return;
    const trace = this.#trace.slice(-400).join("\n");
    const text = found instanceof Error ? found.stack : String(found);
    this.#fault = new Error(`Expected that ${what}; there is ${text}\n${trace}`);
  }

  protected note(...words: unknown[]): void {
    if (IS_TRACED) this.#trace.push(`${this.host.now()} ${words.join(" ")}`);
  }

  #newLife(): Life {
    const { random, host, ledger, faults, telemetry } = this;
    const runId = `run${++this.#lives}`;
    this.#boots.set(runId, this.#boot);
    return new Life({
      random,
      host,
      ledger,
      faults,
      stored: this.#stored,
      runId,
      maxQueueBytes: this.#maxQueueBytes,
      serve: (accept) => {
        telemetry.wire = this.#wire({
          peer: "telemetry",
          onTaken: (bytes) => telemetry.take(bytes),
          onDeliver: () => {},
          onClose: () => telemetry.closed(),
          accept,
        });
      },
      send: (datagram, to, port) => {
        const result = random.pick(["sent", "sent", "full", "refused"] as const);
        const { type_name } = JSON.parse(Buffer.from(datagram).toString());
        if (result === "sent") this.traffic.takeRemote(type_name, `${to}:${port}`);
        return result;
      },
      onFault: (error) => this.demand(false, "there is no defect", error),
    });
  }

  #additions(id: InstanceId): number {
    return this.#added.get(id) ?? 0;
  }

  #born(process: FakeProcess): void {
    const { env = {} } = process.request ?? {};
    const id = env["VEECLE_RUNTIME_ID"] ?? "";
    const other = this.host.processes.find(
      ({ isAlive, pid, request }) =>
        isAlive && pid !== process.pid && request?.env["VEECLE_RUNTIME_ID"] === id,
    );
    this.note("born", id.slice(-1), process.pid);
    this.demand(other === undefined, "an instance has one process at a time", other?.pid);
    this.#runs.set(env[MARK_VARIABLE] ?? "", { id, added: this.#additions(id) });
    const { random } = this;
    process.react = random.chance(0.8) ? dieOf("SIGINT") : () => undefined;
    if (random.chance(0.1)) process.exit({ code: 1 });
  }

  #told({ env }: SpawnRequest): void {
    const run = this.#runs.get(env[MARK_VARIABLE] ?? "");
    if (run?.added === this.#additions(run?.id ?? "")) this.traffic.exited(run?.id ?? "");
  }

  #died(process: FakeProcess): void {
    this.note("died", process.pid);
    for (const guest of this.guests) {
      if (guest.process !== process) continue;
      if (this.random.chance(0.3)) guest.wire?.reset();
      else guest.wire?.end();
    }
    const id = process.mark === undefined ? undefined : this.#runs.get(process.mark)?.id;
    if (id !== undefined && !this.lives(id)) this.judge.ended(id);
  }
}

type WireEnds = Pick<WireOptions, "peer" | "onTaken" | "onDeliver" | "onClose">;

function same(some: readonly string[], others: readonly string[]): boolean {
  return some.toSorted().join("\n") === others.toSorted().join("\n");
}
