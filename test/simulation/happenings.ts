// What may happen to the core, in any order: people ask, programs run and end, sockets carry bytes as
// they like, and the system fails.

import { STOP_SIGNALS } from "../../src/settings.ts";
import type { FakeProcess } from "../support/host.ts";
import type { Random } from "../support/random.ts";
import { Core } from "./core.ts";
import { TYPES } from "./guest.ts";
import { MAX_DESCRIPTOR } from "./life.ts";
import { PEER } from "./traffic.ts";
import type { Wire } from "./wire.ts";

const MAX_CLIENTS = 4;

/** What happens, as often as its number says. */
const WEIGHTS = {
  connect: 5,
  ask: 16,
  carry: 20,
  join: 10,
  talk: 26,
  intrude: 1,
  cut: 2,
  leave: 1,
  exit: 4,
  fork: 2,
  print: 4,
  stranger: 2,
  datagram: 4,
  fill: 3,
  refuse: 2,
  exhaust: 2,
  creep: 1,
  setClock: 2,
  pass: 8,
  kill: 1,
} as const;

type Name = keyof typeof WEIGHTS;

const ACTIONS = (Object.keys(WEIGHTS) as Name[]).flatMap((name) =>
  Array.from({ length: WEIGHTS[name] }, () => name),
);

/** A few operations, since most of what can go wrong goes wrong at once; now and then many. */
const OPERATIONS = 35;
const MANY_OPERATIONS = 400;

/** Everything that a seed leads to. @throws if a promise is broken */
export async function simulateCore(random: Random): Promise<void> {
  const world = new CoreWorld(random);
  await world.open();
  const count = random.seed % 50 === 0 ? MANY_OPERATIONS : OPERATIONS;
  for (let i = 0; i < count; i++) await world.step();
  await world.finish();
}

/** The core, and one thing after the other that happens to it. */
class CoreWorld extends Core {
  /** The last line of each instance. */
  readonly #lines: Map<string, number> = new Map();
  readonly #printing: Set<FakeProcess> = new Set();

  /** As a rule there are instances that run, and links between them, before anything else happens. */
  async open(): Promise<void> {
    const { random, asks } = this;
    if (random.chance(0.1)) return;
    const client = this.openClient(20);
    client.send(asks.opening(random.int(2, 8)));
    await this.#carryAll();
    if (random.chance(0.3)) {
      const follower = this.openClient(20);
      const stream = asks.of(random.pick(["Stdout", "Output", "Events"]));
      follower.send([...(random.chance(0.5) ? [asks.of("Link")] : []), stream]);
    }
    const programs = this.host.processes.filter(({ isAlive }) => isAlive);
    for (const program of programs) if (random.chance(0.8)) this.#join(program);
  }

  /** @throws if a promise is broken */
  async step(): Promise<void> {
    const { host, random } = this;
    // Numbers are used again soon.
    host.nextPid = random.int(100, 130);
    const name = random.pick(ACTIONS);
    this.note(name);
    const done = this[name]();
    if (done !== undefined) await done;
    if (name === "talk" || random.chance(0.3)) await this.carry();
    await this.settle();
    if (random.chance(0.4)) this.check();
  }

  /** Everything gets well, every request is answered, and nothing is left. */
  async finish(): Promise<void> {
    this.note("finish");
    const { faults, host } = this;
    faults.isFull = faults.isRefusing = faults.isOut = false;
    faults.creepMs = 0;
    for (const [round, ms] of [0, 500, 500, 12_000, 3_000].entries()) {
      const waits =
        this.clients.some(({ unanswered }) => unanswered.length > 0) ||
        this.guests.some(({ unanswered }) => unanswered > 0);
      if (round > 2 && !waits) continue;
      await host.run(ms);
      await this.#carryAll();
    }
    for (const { unanswered, wire } of this.clients) {
      const [left] = wire?.isClosed === true ? [] : unanswered;
      this.demand(left === undefined, "every request is answered", left?.text);
    }
    for (const { unanswered, wire, id, process } of this.guests) {
      const isLeft = process.isAlive && wire?.isClosed === false && unanswered > 0;
      this.demand(!isLeft, `${id} is answered`, unanswered);
    }
    const { seq = 0 } = this.ledger.next.events.at(-1) ?? {};
    await this.#carryAll();
    this.#checkStreams(seq);
    this.check();
    this.life.orchestrator.commit();
    this.compare(true);
    const { next, durable } = this.ledger;
    this.demand(next.instances.size === durable.instances.size, "everything is durable");
    if (this.random.chance(0.5)) await this.kill();
    await this.#shutDown();
    this.judged();
  }

  // What may happen.

  connect(): void {
    this.clients = this.clients.filter(({ wire }) => wire?.isClosed === false);
    if (this.clients.length >= MAX_CLIENTS) return;
    this.openClient(this.random.chance(0.05) ? MAX_DESCRIPTOR + this.random.int(0, 40) : 20);
  }

  ask(): void {
    const open = this.clients.filter(({ isDone, wire }) => !isDone && wire?.isClosed === false);
    if (open.length === 0) this.connect();
    else this.random.pick(open).ask(this.random.size(1, 8), this.random.chance(0.2));
  }

  /** Bytes go their way, on every connection as far as chance will have it. */
  async carry(): Promise<void> {
    const { random } = this;
    for (const wire of this.#wires()) {
      if (random.chance(0.2)) continue;
      if (random.chance(0.7)) wire.read(random.chance(0.6) ? wire.unread : random.size(1, 200));
      if (random.chance(0.7)) wire.drain();
      for (let i = random.int(0, 3); i > 0 && !wire.isIdle; i--) {
        wire.deliver(random.chance(0.5) ? this.chunkBytes : random.size(1, 300));
      }
      if (wire.isAtEnd && random.chance(0.5)) wire.end();
      if (random.chance(0.5)) await this.settle();
    }
  }

  /** A program connects to its socket, or one that it has started does. */
  join(): void {
    const { random } = this;
    this.guests = this.guests.filter(({ wire }) => wire?.isClosed === false);
    const programs = this.host.processes.filter(({ isAlive }) => isAlive);
    if (programs.length === 0) return;
    const program = random.pick(programs);
    const connected = this.guests.some(({ process }) => process === program);
    if (!connected || random.chance(0.1)) this.#join(program);
  }

  #join(program: FakeProcess): void {
    const { env = {} } = program.request ?? {};
    const guest = this.openGuest(
      env["VEECLE_RUNTIME_ID"] ?? "",
      env["VEECLE_IPC_SOCKET"] ?? "",
      this.random.chance(0.15) ? program.fork() : program,
      program,
    );
    guest?.send(this.random.int(0, 4));
  }

  talk(): void {
    const { random } = this;
    for (const guest of this.guests) if (random.chance(0.6)) guest.send(random.size(1, 30));
  }

  /** Somebody else finds the socket of an instance. */
  intrude(): void {
    const { host, random } = this;
    const [program] = host.processes.slice(-random.int(1, 3));
    const { env = {} } = program?.request ?? {};
    // Perhaps under the number that the program has had.
    if (random.chance(0.7)) host.nextPid = program?.pid ?? 100;
    const stranger = host.stranger();
    // Or what that has started, whose session then has the number.
    const visitor = random.chance(0.5) ? stranger.fork() : stranger;
    this.strangers.push(...new Set([stranger, visitor]));
    this.openGuest(env["VEECLE_RUNTIME_ID"] ?? "", env["VEECLE_IPC_SOCKET"] ?? "", visitor);
  }

  /** A connection is reset, at whatever byte it is. */
  cut(): void {
    const wires = this.#wires();
    if (wires.length > 0) this.random.pick(wires).reset();
  }

  /** A client sends no more; it still reads. */
  leave(): void {
    const [client] = this.clients;
    if (client !== undefined) client.leave();
  }

  exit(): void {
    const alive = this.host.table.filter(({ isAlive, mark }) => isAlive && mark !== undefined);
    if (alive.length === 0) return;
    const signal = this.random.pick([undefined, ...STOP_SIGNALS]);
    this.random
      .pick(alive)
      .exit(signal === undefined ? { code: this.random.int(0, 1) } : { signal });
  }

  fork(): void {
    const alive = this.host.table.filter(({ isAlive, mark }) => isAlive && mark !== undefined);
    if (alive.length > 0 && alive.length < 12) this.random.pick(alive).fork();
  }

  print(): void {
    for (let i = this.random.int(1, 3); i > 0; i--) this.#print();
  }

  #print(): void {
    for (const process of this.host.processes) {
      const { isAlive, request } = process;
      if (!isAlive || request === undefined || this.#printing.has(process)) continue;
      const id = request.env["VEECLE_RUNTIME_ID"] ?? "";
      const first = (this.#lines.get(id) ?? 0) + 1;
      const lines = Array.from({ length: this.random.size(1, 20) }, (_, i) => `${first + i}\n`);
      this.#lines.set(id, first + lines.length - 1);
      if (this.isCurrent(process)) this.#tellFollowers(id, first + lines.length - 1);
      const room = request.onOutput("stdout", Buffer.from(lines.join("")));
      if (room === undefined) continue;
      this.#printing.add(process);
      void room.then(() => this.#printing.delete(process));
    }
  }

  /** Whoever is told that it follows has to get what is printed from then on. */
  #tellFollowers(id: string, printed: number): void {
    for (const client of this.clients) {
      if (client.stream?.kind === "Stdout" && client.stream.id === id) client.printed = printed;
    }
  }

  /** Somebody else gets a number that one of ours may have had. */
  stranger(): void {
    if (this.strangers.length > 6) {
      for (const process of this.strangers) process.exit();
      this.strangers = [];
    }
    this.strangers.push(this.host.stranger());
  }

  datagram(): void {
    const { traffic, random } = this;
    const message = traffic.next(PEER, random.pick(TYPES));
    traffic.read(PEER, message);
    const { typeName, seq } = message;
    const text = JSON.stringify({ type_name: typeName, value: `${PEER} ${seq} .` });
    this.life.orchestrator.receiver.receive(Buffer.from(text), "127.0.0.1", 9);
  }

  fill(): void {
    this.faults.isFull = this.random.chance(0.4);
    this.ledger.isFull = this.faults.isFull;
    this.note("full", this.faults.isFull);
  }

  /** From now on the disk may not confirm what it was given. */
  refuse(): void {
    this.faults.isRefusing = this.random.chance(0.4);
  }

  exhaust(): void {
    this.faults.isOut = this.random.chance(0.3);
  }

  creep(): void {
    this.faults.creepMs = this.random.pick([0, 0, 0.2, 3]);
  }

  /** Somebody sets the wall clock, forward or back. */
  setClock(): void {
    this.host.wallShiftMs = this.random.int(-4_000_000_000, 4_000_000_000);
  }

  async pass(): Promise<void> {
    await this.host.run(this.random.size(0, 3_000));
  }

  #wires(): Wire[] {
    const all = [...this.clients, ...this.guests, this.telemetry].flatMap(({ wire }) => wire ?? []);
    return all.filter(({ isClosed }) => !isClosed);
  }

  /** Until nobody has anything to say that somebody reads. */
  async #carryAll(): Promise<void> {
    for (let isBusy = true; isBusy;) {
      isBusy = false;
      for (const wire of this.#wires()) {
        wire.heal();
        isBusy ||= wire.unread > 0 || !wire.isIdle || wire.isDrainable;
        wire.read();
        wire.drain();
        wire.deliver(this.chunkBytes);
        if (wire.isAtEnd) wire.end();
      }
      await this.settle();
      if (!isBusy) await this.host.run(2);
    }
  }

  /** What came as items is in order; who still follows has all of it, and of events those until `seq`. */
  #checkStreams(until: number): void {
    for (const { stream, items, wire, printed } of this.clients) {
      if (stream === undefined) continue;
      const isOpen = wire?.isClosed === false && !wire.isFinished;
      if (isOpen && printed !== undefined) {
        this.demand(
          Number(items.at(-1)) === printed,
          `a follower has line ${printed}`,
          items.at(-1),
        );
      }
      if (isOpen && stream.kind === "Events") this.#checkEvents(stream.text, items, until);
      let last = -1;
      const lasts = new Map<string, number>();
      for (const item of items) {
        if (stream.kind === "Events") {
          const { seq } = JSON.parse(item);
          this.demand(seq > last, `events come in order, after ${last}`, seq);
          last = seq;
          continue;
        }
        const isPlain = stream.kind === "Stdout";
        const { id, line } = isPlain ? { id: "", line: item } : JSON.parse(item);
        const before = lasts.get(id);
        if (line.startsWith("[veecle-orchestrator: ")) lasts.delete(id);
        else {
          const isNext = before === undefined || Number(line) === before + 1;
          this.demand(isNext, `lines come in order, once, after ${before}`, line);
          lasts.set(id, Number(line));
        }
      }
    }
  }

  /** From the first event that it got on, somebody who follows misses none that is kept. */
  #checkEvents(request: string, items: readonly string[], until: number): void {
    const { Events } = JSON.parse(request);
    if (Events.follow !== true || items.length === 0) return;
    const seen = new Set(items.map((item): number => JSON.parse(item).seq));
    const [first = 0] = seen;
    const missed = this.ledger.next.events.find(
      ({ seq, id }) =>
        seq > first && seq <= until && !seen.has(seq) && (Events.ids?.includes(id) ?? true),
    );
    this.demand(missed === undefined, "a follower misses no event", missed?.seq);
  }

  async #shutDown(): Promise<void> {
    const { life, host } = this;
    for (const client of this.clients) client.leave();
    let isDown = false;
    void life.orchestrator.shutDown().then(() => (isDown = true));
    await host.run(12_000);
    this.demand(isDown, "a daemon ends in time");
    void life.telemetry.close(1_000);
    life.server.close();
    this.telemetry.wire?.reset();
    await host.run(62_000);
    const alive = host.table.filter(({ mark, isAlive }) => mark !== undefined && isAlive);
    this.demand(alive.length === 0, "no process is left", alive[0]?.pid);
    this.demand(life.listeners.size === 0, "no socket is left", life.listeners.size);
    this.demand(life.shelf.open === 0, "no upload is left", life.shelf.open);
    this.demand(host.timers === 0, "no timer is left", host.timers);
  }
}
