// The orchestrator and its memory: what is acknowledged is there after every kind of end, and what is
// refused is not.

import type { OrchestratorError } from "../../src/errors.ts";
import type { Info, RuntimeInfo } from "../../src/protocol/info.ts";
import { Log, parseLogFilter } from "../../src/log.ts";
import type { Histories } from "../../src/output/history.ts";
import type { Batch } from "../../src/memory.ts";
import type { LinkKey } from "../../src/model.ts";
import { Orchestrator } from "../../src/orchestrator.ts";
import type { InstanceSettings } from "../../src/settings.ts";
import { SpoolShare } from "../../src/output/spool.ts";
import type { State } from "../../src/store/state.ts";
import type { Store } from "../../src/store.ts";
import { dieOf, FakeHost } from "../support/host.ts";
import { property, type Random } from "../support/random.ts";
import { idOf } from "../support/registry.ts";
import { nameOf, Notebook } from "./notebook.ts";

const OPERATIONS = 120;

const quiet = new Log(
  parseLogFilter("off"),
  () => {},
  () => 0,
);

/** What must be registered: by id, what it is run with; and the links. */
interface Registered {
  readonly instances: Map<string, { path: string; name: string }>;
  readonly links: Set<string>;
}

const CHANGES = {
  add: 10,
  remove: 6,
  update: 9,
  start: 12,
  stop: 8,
  link: 8,
  unlink: 4,
  clear: 1,
} as const;

/** Everything else that happens. */
const HAPPENINGS = { commit: 8, exit: 8, pass: 16, fill: 5, kill: 2 } as const;

type Name = keyof typeof CHANGES | keyof typeof HAPPENINGS;

const ACTIONS = Object.entries({ ...CHANGES, ...HAPPENINGS }).flatMap(([name, weight]) =>
  Array.from({ length: weight }, () => name as Name),
);

class Simulation {
  readonly #random: Random;
  readonly #book: Notebook = new Notebook();
  #host: FakeHost = new FakeHost();
  #orchestrator: Orchestrator;
  /** As it was answered, or became durable without that. */
  #answered: Registered = { instances: new Map(), links: new Set() };
  /** With what was done since the last commit. */
  #done: Registered = { instances: new Map(), links: new Set() };
  #batch: Batch;
  #marks = 0;
  #fault: Error | undefined;

  constructor(random: Random) {
    this.#random = random;
    this.#orchestrator = this.#open();
    this.#batch = this.#orchestrator.batch;
  }

  async step(): Promise<void> {
    await this[this.#random.pick(ACTIONS)]();
    this.#follow();
    if (this.#random.chance(0.2)) this.commit();
    await this.#compare();
  }

  /** In the end everything is as it was answered, in memory, on disk, and after a restart. */
  async finish(): Promise<void> {
    this.#book.isFull = false;
    await this.#host.run(20_000);
    this.commit();
    await this.#compare();
    await this.kill();
    this.#watch(this.#orchestrator.clear(), []);
    await this.#host.run(20_000);
    this.#demand(this.#host.timers === 0, "no timer is left", this.#host.timers);
    this.#demand(this.#host.table.length === 0, "no process is left", this.#host.table.length);
    const { instances, links } = this.#book.durable;
    this.#demand(instances.length + links.length === 0, "nothing is remembered");
    if (this.#fault !== undefined) throw this.#fault;
  }

  // Changes that clients ask for.

  add(): void {
    const [id, path] = [this.#anyId(), `/opt/${this.#random.pick(NAMES)}`];
    const settings = this.#someSettings();
    const { instances } = this.#done;
    const isRefused = instances.has(id) || this.#isTaken(settings.name);
    const add = (): void => this.#orchestrator.add(id, path, settings);
    if (this.#ask(add, isRefused ? "already_exists" : undefined)) {
      const { name } = this.#info().runtimes[id] as RuntimeInfo;
      this.#demand(!this.#isTaken(name), "names are unique", name);
      if (settings.name !== undefined) this.#demand(name === settings.name, "is called so", name);
      instances.set(id, { path, name });
    }
  }

  remove(): void {
    const id = this.#anyId();
    const state = this.#info().runtimes[id]?.state;
    const isBusy = state === "running" || state === "stopping";
    const codes = state === undefined ? "not_found" : isBusy ? "wrong_state" : this.#refusal();
    const other = this.#clears > 0 ? ["wrong_state"] : [];
    if (this.#ask(() => this.#orchestrator.remove(id), codes, other)) this.#forget(id);
  }

  update(): void {
    const id = this.#anyId();
    const known = this.#done.instances.get(id);
    const path = this.#random.chance(0.5) ? "/opt/other" : undefined;
    const settings = this.#someSettings();
    const isTaken = settings.name !== known?.name && this.#isTaken(settings.name);
    const code = known === undefined ? "not_found" : isTaken ? "already_exists" : undefined;
    const update = (): void => this.#orchestrator.update(id, path, settings);
    if (this.#ask(update, code) && known !== undefined) {
      const name = settings.name ?? known.name;
      this.#done.instances.set(id, { path: path ?? known.path, name });
    }
  }

  link(): void {
    const key = this.#anyKey();
    const isKnown = [key.from ?? TO(key), TO(key)].every((id) => this.#done.instances.has(id));
    const link = (): void => this.#orchestrator.links.add(key, { maxMessages: 1 });
    if (this.#ask(link, isKnown ? undefined : "not_found")) this.#done.links.add(nameOf(key));
  }

  unlink(): void {
    const key = this.#anyKey();
    const isKnown = this.#done.links.has(nameOf(key));
    const code = isKnown ? this.#refusal() : "not_found";
    if (this.#ask(() => this.#orchestrator.links.remove(key), code)) {
      this.#done.links.delete(nameOf(key));
    }
  }

  start(): void {
    this.#watch(this.#orchestrator.start(this.#anyId(), undefined), [
      "not_found",
      "wrong_state",
      "cannot_run",
    ]);
  }

  stop(): void {
    this.#watch(this.#orchestrator.stop(this.#anyId()), ["not_found", "wrong_state"]);
  }

  #clears = 0;

  clear(): void {
    const [captured, links] = [[...this.#done.instances.keys()], [...this.#done.links]];
    const orchestrator = this.#orchestrator;
    this.#clears++;
    const cleared = orchestrator.clear().then(
      () => {
        if (orchestrator !== this.#orchestrator) return;
        for (const id of captured) this.#forget(id);
        for (const name of links) this.#done.links.delete(name);
      },
      (error: unknown) => {
        if (!this.#book.isFull) throw error;
      },
    );
    this.#watch(
      cleared.finally(() => {
        if (orchestrator === this.#orchestrator) this.#clears--;
      }),
      [],
    );
  }

  // What happens otherwise.

  /** Answers everything that was done: a success only if it is durable. */
  commit(): void {
    this.#orchestrator.commit();
    this.#follow();
  }

  exit(): void {
    const all = this.#host.table.filter((process) => process.isAlive);
    if (all.length > 0) this.#random.pick(all).exit({ code: this.#random.int(0, 1) });
  }

  async pass(): Promise<void> {
    await this.#host.run(this.#random.size(0, 2_000));
  }

  fill(): void {
    this.#book.isFull = this.#random.chance(0.4);
  }

  /** The daemon is killed, its guard ends what it started, and another one takes over. */
  async kill(): Promise<void> {
    await this.#host.settle();
    this.#follow();
    this.#book.reopen();
    this.#done = copy(this.#answered);
    this.#clears = 0;
    const { instances, links } = this.#book.durable;
    this.#host = new FakeHost();
    this.#orchestrator = this.#open();
    this.#orchestrator.restore(instances, links);
    this.#batch = this.#orchestrator.batch;
    await this.#host.settle();
    for (const { id, wanted } of instances) {
      const started = this.#host.processes.filter(
        ({ request }) => request?.env["VEECLE_RUNTIME_ID"] === id,
      );
      const isOnce = started.length === (wanted ? 1 : 0);
      this.#demand(isOnce, `${id} is started once if it was meant to run`, started.length);
      const signals = started.flatMap((process) => process.signals);
      this.#demand(signals.length === 0, `${id} runs on`, signals);
    }
  }

  // Where it happens.

  #open(): Orchestrator {
    const host = this.#host;
    host.onSpawn = (process) => {
      process.react = this.#random.chance(0.8) ? dieOf("SIGINT") : () => undefined;
      if (this.#random.chance(0.1)) process.exit({ code: 1 });
    };
    return new Orchestrator({
      host,
      log: quiet,
      state: {
        store: this.#book as unknown as Store,
        binaries: { collect() {} } as unknown as State["binaries"],
      },
      env: {},
      openSocket: (id) => ({ path: `/run/${id}`, close() {} }),
      telemetry: undefined,
      histories: HISTORIES,
      guard: { add() {}, remove() {} },
      newMark: () => `run.${++this.#marks}`,
      newCgroup: () => undefined,
      random: () => this.#random.next() / 2 ** 32,
      onFault: (error) => this.#demand(false, "there is no defect", error),
    });
  }

  /** Does what is asked for; returns whether it succeeded. Refused must be what the model refuses. */
  #ask(action: () => void, refusal: string | undefined, others: readonly string[] = []): boolean {
    let code: string | undefined;
    try {
      action();
    } catch (error) {
      code = (error as OrchestratorError).code;
    }
    const isExpected = code === refusal || (code !== undefined && others.includes(code));
    this.#demand(isExpected, `the answer is ${refusal ?? "a success"}`, code);
    return code === undefined;
  }

  #watch(promise: Promise<unknown>, codes: readonly string[]): void {
    promise.catch((error: OrchestratorError) => {
      this.#demand(codes.includes(error.code), `the answer is a success or ${codes}`, error);
    });
  }

  /** What is removed for good is committed first. */
  #refusal(): "io" | undefined {
    return this.#book.isFull ? "io" : undefined;
  }

  /** Whether what was done since the last look has become durable, or was undone. */
  #follow(): void {
    const { batch } = this.#orchestrator;
    if (this.#batch === batch) return;
    if (this.#batch.error === undefined) this.#answered = copy(this.#done);
    else this.#done = copy(this.#answered);
    this.#batch = batch;
  }

  #info(): Info {
    return JSON.parse(this.#orchestrator.info().pieces.join(""));
  }

  /** Memory and disk hold what they must. */
  async #compare(): Promise<void> {
    await this.#host.settle();
    this.#follow();
    const { runtimes, routes } = this.#info();
    const here: Registered = {
      instances: new Map(
        Object.entries(runtimes).map(([id, { binary: path, name }]) => [id, { path, name }]),
      ),
      links: new Set(
        routes.map(({ from, type_name, to }) => `${from ?? "any"} ${type_name} ${to}`),
      ),
    };
    this.#same(here, this.#done, "memory");
    const { instances, links } = this.#book.durable;
    const there: Registered = {
      instances: new Map(instances.map(({ id, path, settings: { name } }) => [id, { path, name }])),
      links: new Set(links.map(({ key }) => nameOf(key))),
    };
    this.#same(there, this.#answered, "disk");
    this.#compareStates();
    if (this.#fault !== undefined) throw this.#fault;
  }

  /** Whether each instance is meant to run is remembered with the next commit at the latest. */
  #compareStates(): void {
    if (this.#book.isFull || !this.#random.chance(0.1)) return;
    this.commit();
    const { runtimes } = this.#info();
    for (const { id, wanted } of this.#book.durable.instances) {
      const state = runtimes[id]?.state;
      const isWanted = state === "running" || state === "waiting";
      this.#demand(wanted === isWanted, `${id}, which is ${state}, is remembered so`, wanted);
    }
  }

  #same(found: Registered, wanted: Registered, where: string): void {
    const text = ({ instances, links }: Registered): string =>
      JSON.stringify([[...instances].sort(), [...links].sort()]);
    const [there, expected] = [text(found), text(wanted)];
    this.#demand(there === expected, `in ${where} there is ${expected}`, there);
  }

  #forget(id: string): void {
    this.#done.instances.delete(id);
    for (const name of this.#done.links) if (name.includes(id)) this.#done.links.delete(name);
  }

  #anyId(): string {
    return idOf(this.#random.int(1, 6));
  }

  #anyKey(): LinkKey {
    const from = this.#random.chance(0.5) ? undefined : this.#anyId();
    const to = { kind: "instance", id: this.#anyId() } as const;
    return { from, typeName: this.#random.pick(["T", "U"]), to };
  }

  #someSettings(): Partial<InstanceSettings> {
    const random = this.#random;
    return {
      ...(random.chance(0.3) ? { name: random.pick(NAMES) } : {}),
      restart: random.pick(["no", "on-failure", "always"] as const),
      stopGraceMs: random.pick([0, 100]),
    };
  }

  #isTaken(wanted: string | undefined): boolean {
    return [...this.#done.instances.values()].some(({ name }) => name === wanted);
  }

  #demand(isSo: boolean, what: string, found?: unknown): void {
    if (!isSo) this.#fault ??= new Error(`Expected that ${what}; there is ${String(found)}`);
  }
}

const NAMES = ["ping", "pong", "echo"] as const;

const TO = ({ to }: LinkKey): string => (to.kind === "instance" ? to.id : "");

/** Nothing is printed, so nothing is kept. */
const HISTORIES = {
  open: () => ({
    files: { append: async () => 0, rest: async () => {}, look: async () => {} },
    share: new SpoolShare(),
    onTrouble() {},
    now: () => 0,
    after: () => () => {},
  }),
  remove: async () => {},
  sweep: async () => {},
} as unknown as Histories;

function copy({ instances, links }: Registered): Registered {
  return { instances: new Map(instances), links: new Set(links) };
}

property(
  "An orchestrator remembers what it has answered, and nothing else",
  2_000,
  async (random) => {
    const simulation = new Simulation(random);
    for (let i = 0; i < OPERATIONS; i++) await simulation.step();
    await simulation.finish();
  },
);
