// The rules that span owners: what a request means for processes, links, sockets, output and memory.
//
// The only file that knows all of them. A refusal is thrown here and answered where it came in.
// A change is made, then written; `memory.ts` takes it back if it cannot be made durable.

import type { Cgroup } from "./host/cgroup.ts";
import type { DatagramSocket } from "./datagram.ts";
import { messageChain, OrchestratorError } from "./errors.ts";
import type { Guard } from "./host/guard.ts";
import type { Histories } from "./output/history.ts";
import type { Host } from "./host.ts";
import type { ResourcesInfo } from "./protocol/info.ts";
import { Instance, type InstanceSocket } from "./instance.ts";
import { type Detail, type EventKind, Journal } from "./journal.ts";
import { FLUSH_MS, LAST_OUTPUT_MS } from "./limits.ts";
import { Links } from "./links.ts";
import { type Log, QuietLog } from "./log.ts";
import { type Batch, Memory } from "./memory.ts";
import { formatTarget, type InstanceId, type Priority } from "./model.ts";
import { Notices } from "./notices.ts";
import type { Follower, Output } from "./output.ts";
import { PeerReceiver } from "./peer.ts";
import { Turns } from "./port.ts";
import { InfoAnswers } from "./orchestrator/answer.ts";
import { obey } from "./orchestrator/obey.ts";
import { collectPrograms } from "./orchestrator/programs.ts";
import type { JsonPieces } from "./protocol.ts";
import { settingFields } from "./protocol/fields.ts";
import { bootId } from "./host/processes.ts";
import { OutboxPool } from "./queue.ts";
import { Registry, unknownInstance } from "./registry.ts";
import { Router } from "./router.ts";
import { DEFAULT_SETTINGS, type InstanceSettings, proposeName } from "./settings.ts";
import type { Accept } from "./socket.ts";
import type { StoredInstance, StoredLink } from "./store/records.ts";
import type { State } from "./store/state.ts";
import type { TelemetryExporter } from "./telemetry.ts";
import { TypeTable } from "./message/typename.ts";

/** What the orchestrator is built on; the daemon hands in the real doors. */
export interface OrchestratorOptions {
  readonly host: Host;
  readonly log: Log;
  readonly state: Pick<State, "store" | "binaries">;
  /** The environment that instances get, with the variables of their own added. */
  readonly env: Readonly<Record<string, string>>;
  /** Opens the socket of an instance; `address` goes into its environment. */
  openSocket(id: InstanceId, accept: Accept): InstanceSocket;
  readonly telemetry: TelemetryExporter | undefined;
  /** Where the output of instances is kept. */
  readonly histories: Histories;
  /** What all queues share. */
  readonly pool?: OutboxPool;
  /** Is told of every process, to end it if we cannot. */
  readonly guard: Pick<Guard, "add" | "remove">;
  /** A mark that no other run has. */
  newMark(): string;
  newCgroup(mark: string): Cgroup | undefined;
  random(): number;
  readonly onFault: (error: unknown) => void;
}

/** A program that a client has sent: its SHA-256, its size, and where the client had it. */
export interface Uploaded {
  readonly hash: string;
  readonly bytes: number;
  readonly origin: string;
}

/** The instances and links of one daemon. */
export class Orchestrator {
  readonly #options: OrchestratorOptions;
  readonly #instances: Registry;
  readonly #router: Router;
  readonly #pool: OutboxPool;
  readonly #notices: Notices;
  readonly #memory: Memory;
  readonly #journal: Journal;
  readonly #types: TypeTable = new TypeTable();
  readonly #turns: Turns = new Turns();
  readonly #links: Links;
  readonly #answers: InfoAnswers;
  readonly #bootId: string | undefined = bootId();
  /** What arrives from other orchestrators. */
  readonly receiver: PeerReceiver;

  constructor(options: OrchestratorOptions) {
    this.#options = options;
    const { host, log } = options;
    this.#instances = new Registry(host.descriptorsLeft);
    const { store } = options.state;
    const quiet = new QuietLog(log.target("router"), host.now);
    this.#memory = new Memory({
      store,
      log: new QuietLog(log.target("memory"), host.now),
      after: host.after,
      saveRun: (id) => {
        const instance = this.#instances.get(id);
        if (instance !== undefined) store.putStatus(id, instance.status);
      },
    });
    this.#journal = new Journal(this.#memory, host.wallMs, host.after);
    this.#pool = options.pool ?? new OutboxPool();
    this.#notices = new Notices(
      (id, typeName, notice) => this.#instances.get(id)?.port.notice(typeName, notice),
      host.after,
    );
    this.#router = new Router((key, reason, count, source) => {
      this.#notices.add(key, reason, count, source);
      this.#journal.dropped(key, reason, count);
      const to = formatTarget(key.to);
      quiet.warn(`${reason} ${to}`, "run", "dropped messages", {
        reason,
        type: key.typeName,
        to,
        count,
      });
    }, this.#pool);
    this.#links = new Links({
      router: this.#router,
      memory: this.#memory,
      journal: this.#journal,
      translator: this.#pool.translator,
      findTarget: (id) => this.#instances.get(id)?.outbox,
      wallMs: host.wallMs,
    });
    this.receiver = new PeerReceiver(this.#router, new QuietLog(log.target("peer"), host.now));
    this.#answers = new InfoAnswers({ ...options, receiver: this.receiver, store });
  }

  /** @throws `already_exists` or `limit_exceeded` if such an instance cannot be added */
  checkNew(id: InstanceId, name: string | undefined): void {
    this.#instances.checkNew(id, name);
  }

  /** @throws `not_found` if there is no such instance to change */
  checkKnown(id: InstanceId): void {
    this.#instances.find(id, "change");
  }

  /** The values of an instance's own variables, which may be secret. @throws `not_found` */
  environment(id: InstanceId): Readonly<Record<string, string>> {
    return this.#instances.find(id, "read the variables of").settings.env;
  }

  /** Whether an instance has sent a message of a type since it was started. @throws `not_found` */
  hasSent(id: InstanceId, typeName: string): boolean {
    return this.#instances.find(id, "look at").source.hasSent(typeName);
  }

  /** What happens, and has happened. */
  get journal(): Journal {
    return this.#journal;
  }

  /** The changes that are not durable yet. */
  get batch(): Batch {
    return this.#memory.batch;
  }

  /** As `Memory.durable()`. */
  commit(): Promise<void> | undefined {
    return this.#memory.durable();
  }

  /** From now on links may lead to other orchestrators. */
  useSocket(socket: DatagramSocket): void {
    this.#links.useSocket(socket);
  }

  /** Takes over what the store holds, and starts again what was meant to run. */
  restore(instances: readonly StoredInstance[], links: readonly StoredLink[]): void {
    const log = this.#options.log.target("orchestrator");
    for (const stored of instances) {
      const instance = this.#open(stored.id, stored.path, stored.binary, stored.settings);
      instance.supervisor.restore(stored);
    }
    for (const { key, settings } of links) {
      try {
        this.#links.restore(key, settings);
      } catch (error) {
        log.warn("run", "a link of before cannot be made again", {
          error: messageChain(error).join(": "),
        });
      }
    }
    void this.collect();
    this.#options.histories
      .sweep((id) => this.#instances.get(id) !== undefined)
      .catch((error: unknown) => this.#options.onFault(error));
    for (const { id, wanted, priority } of instances) {
      if (!wanted) continue;
      const instance = this.#instances.get(id) as Instance;
      this.#start(id, priority ?? undefined, true).catch((error: unknown) => {
        const chain = messageChain(error).join(": ");
        const reason = chain.replace(`Cannot start instance "${id}": `, ""); // whoever asks knows which
        log.error("run", "an instance of before cannot be started again", { id, error: reason });
        // Not if the daemon is ending already, or somebody has removed it meanwhile.
        if (this.#instances.isEnding || !this.#instances.holds(instance)) return;
        if (!instance.isRemoving) instance.supervisor.restoreFailed(reason);
      });
    }
    this.#memory.commit();
  }

  /**
   * Registers an instance and opens its socket; `path` is where its program is.
   * @throws `already_exists`, `limit_exceeded` or `io`
   */
  add(id: InstanceId, path: string, given: Partial<InstanceSettings>, uploaded?: Uploaded): void {
    this.#instances.checkNew(id, given.name);
    const name = given.name ?? proposeName(uploaded?.origin ?? path, this.#instances.names());
    const settings = { ...DEFAULT_SETTINGS, ...given, name };
    const binary = uploaded?.hash ?? null;
    const instance = this.#open(id, path, binary, settings);
    this.#memory.change(
      (store) => store.putInstance({ id, path, binary, settings, ...instance.status }),
      () => {
        void this.#discard(instance);
        // What is undone after this may use its binary again.
        if (binary !== null) this.#options.host.after(0, () => void this.collect());
      },
    );
    if (uploaded !== undefined) this.#record("uploaded", instance, { ...uploaded });
    this.#record("added", instance, { path });
  }

  /**
   * Changes the settings of an instance; a process that runs keeps those it was started with, except
   * for how it is stopped and started again.
   * @throws `not_found` or `already_exists`
   */
  update(
    id: InstanceId,
    path: string | undefined,
    given: Partial<InstanceSettings>,
    uploaded?: Uploaded,
  ): void {
    const instance = this.#instances.find(id, "change");
    if (given.name !== undefined && given.name !== instance.settings.name) {
      this.#instances.checkName(given.name, `Cannot change instance "${id}"`);
    }
    const before = [instance.path, instance.binary, instance.settings] as const;
    if (path !== undefined) [instance.path, instance.binary] = [path, uploaded?.hash ?? null];
    instance.settings = { ...instance.settings, ...given };
    const { settings, binary } = instance;
    this.#memory.change(
      (store) =>
        store.putInstance({ id, path: instance.path, binary, settings, ...instance.status }),
      () => ([instance.path, instance.binary, instance.settings] = before),
    );
    // Not at once: whoever asked is told of the present batch.
    if (binary === null && before[1] !== null)
      this.#options.host.after(0, () => void this.collect());
    if (uploaded !== undefined) this.#record("uploaded", instance, { ...uploaded });
    const program = path === undefined ? {} : { path };
    this.#record("updated", instance, { ...program, settings: Object.keys(settingFields(given)) });
  }

  /** @throws `not_found`, `wrong_state` while it runs, or `io` if it cannot be remembered */
  remove(id: InstanceId): Batch {
    const instance = this.#instances.find(id, "remove");
    if (instance.isRemoving) {
      throw new OrchestratorError(
        "wrong_state",
        `Cannot remove instance "${id}": it is being removed already`,
      );
    }
    instance.supervisor.checkRemove();
    const subject = `Cannot remove instance "${id}"`;
    const batch = this.#memory.forget((store) => store.removeInstance(id), subject);
    void this.#discard(instance);
    void this.collect();
    this.#record("removed", instance);
    return batch;
  }

  /**
   * Starts an instance: at once, unless its uploaded program has to be looked at first. Settles with
   * the batch that makes it durable: the present one may be another by then.
   * @throws `not_found`, `wrong_state` or `cannot_run`
   */
  start(id: InstanceId, priority: Priority | undefined): Promise<Batch> {
    return this.#start(id, priority, false);
  }

  /** What ran before `isAgain` started, and not undone, whether it can be remembered or not. */
  async #start(id: InstanceId, priority: Priority | undefined, isAgain: boolean): Promise<Batch> {
    const instance = this.#instances.findToStart(id);
    const { binary, supervisor } = instance;
    const { binaries } = this.#options.state;
    const undone = this.#instances.undone(id);
    const isVerified = binary === null || binaries.isVerified(binary);
    if (undone !== undefined || !isVerified) {
      supervisor.checkStart();
      await undone;
      let fault: unknown;
      if (!isVerified) await binaries.verify(binary).catch((error: unknown) => (fault = error));
      if (this.#instances.findToStart(id) !== instance)
        throw unknownInstance(`Cannot start instance "${id}"`, id);
      if (fault !== undefined) throw supervisor.refuseStart(fault);
    }
    supervisor.start(priority, isAgain);
    this.#memory.runChanged(id, () => {
      if (!isAgain) this.#instances.holdBack(id, supervisor.undoStart());
    });
    return this.#memory.batch;
  }

  /** Settles with the batch that remembers it. @throws `not_found`, `wrong_state` or `stop_failed` */
  async stop(id: InstanceId): Promise<Batch> {
    await this.#instances.find(id, "stop").supervisor.stop();
    this.#memory.runChanged(id, () => {}); // it is gone, whether that can be remembered or not
    return this.#memory.batch;
  }

  /** The links between instances, and to other orchestrators. */
  get links(): Links {
    return this.#links;
  }

  /** Follows the output of an instance; the returned function ends that. @throws `not_found` */
  follow(id: InstanceId, follower: Follower): () => void {
    const { output } = this.#instances.find(id, "follow the output of");
    output.follow(follower);
    return () => output.unfollow(follower);
  }

  /** The output of instances, those that were asked for or all. @throws `not_found` */
  outputs(ids?: readonly InstanceId[]): ReadonlyMap<InstanceId, Output> {
    const asked = ids?.map((id) => this.#instances.find(id, "read the output of")) ?? [
      ...this.#instances.all(),
    ];
    return new Map(asked.map(({ id, output }) => [id, output]));
  }

  /** What instances use now: those that were asked for, or all that run. @throws `not_found` */
  async resources(ids?: readonly InstanceId[]): Promise<Record<InstanceId, ResourcesInfo>> {
    const asked = ids?.map((id) => this.#instances.find(id, "look at")) ?? this.#instances.all();
    const found = asked.map(async ({ id, supervisor }) => {
      const used = await supervisor.resources();
      return used === undefined ? [] : [[id, used] as const];
    });
    return Object.fromEntries((await Promise.all(found)).flat());
  }

  /** Stops and removes every instance and every link. @throws `stop_failed` for what is left */
  async clear(): Promise<Batch> {
    const instances = this.#instances.all();
    const links = this.#links.keys();
    for (const instance of instances) instance.removals++;
    const faults = await this.#stopAll(instances);
    const removed = instances.filter((instance) => {
      instance.removals--;
      return this.#instances.holds(instance) && !instance.isBusy;
    });
    const batch = this.#memory.forget((store) => {
      for (const { id } of removed) store.removeInstance(id);
      for (const key of links) store.removeLink(key);
    }, "Cannot clear");
    this.#links.drop(links);
    const discarded = removed.map((instance) => this.#discard(instance));
    void this.collect();
    for (const instance of removed) this.#record("removed", instance);
    await this.#atMost(FLUSH_MS, discarded);
    if (faults.length > 0) {
      throw new OrchestratorError("stop_failed", "Cannot clear all instances", {
        cause: faults[0],
      });
    }
    return batch;
  }

  /** Stops every instance, for the end of the daemon; they are started again with the next one. */
  async shutDown(): Promise<void> {
    this.#memory.commit();
    this.#instances.isEnding = true;
    const instances = this.#instances.all();
    for (const instance of instances) instance.removals++;
    for (const fault of await this.#stopAll(instances)) {
      this.#options.log.target("orchestrator").error("run", messageChain(fault).join(": "));
    }
    await this.#instances.swept();
    const last = instances.map(({ output }) => output.quiet());
    await this.#atMost(LAST_OUTPUT_MS, last); // what escaped with it may hold the output open
    const discarded = instances.map((instance) => this.#discard(instance));
    await this.#atMost(FLUSH_MS, discarded);
  }

  /** Sends SIGKILL to everything, without an answer. */
  kill(): void {
    for (const { supervisor } of this.#instances.all()) {
      try {
        supervisor.kill();
      } catch (error) {
        this.#options.onFault(error); // one that may not be signalled must not save the others
      }
    }
  }

  /** The answer to `Info` as JSON. */
  info(): JsonPieces {
    return this.#answers.encode(this.#instances.sorted(), this.#links.info());
  }

  async #stopAll(instances: readonly Instance[]): Promise<unknown[]> {
    const running = instances.filter((instance) => instance.isBusy || instance.isWanted);
    const results = await Promise.allSettled(running.map(({ supervisor }) => supervisor.stop()));
    return results.filter((result) => result.status === "rejected").map(({ reason }) => reason);
  }

  #open(id: InstanceId, path: string, binary: string | null, settings: InstanceSettings): Instance {
    const { host, log, env, telemetry, histories, openSocket } = this.#options;
    const { newMark, newCgroup, random } = this.#options;
    const instance = new Instance({
      id,
      path,
      binary,
      settings,
      env,
      pool: this.#pool,
      bootId: this.#bootId,
      histories,
      port: {
        types: this.#types,
        router: this.#router,
        telemetry,
        turns: this.#turns,
        quiet: new QuietLog(log.target("port"), host.now),
        after: host.after,
        now: host.now,
      },
      supervisor: { host, log: log.target("supervisor"), newMark, newCgroup, random },
      control: (request) => obey(this, id, request, log.target("audit")),
      openSocket,
      verifyProgram: (hash) => this.#options.state.binaries.verify(hash),
      guard: this.#options.guard,
      happened: (about, kind, detail) => {
        if (this.#instances.isEnding || !this.#instances.holds(about)) return;
        this.#memory.runChanged(id);
        this.#record(kind, about, detail);
      },
    });
    this.#instances.add(instance);
    return instance;
  }

  /** Settles when nothing of the instance is left; at the daemon's end its output stays. */
  async #discard(instance: Instance): Promise<void> {
    const { id } = instance;
    if (!this.#instances.holds(instance)) return; // removed by somebody else meanwhile
    this.#instances.remove(instance);
    this.#router.removeInstance(id);
    try {
      await instance.close(this.#instances.isEnding);
    } catch (error) {
      this.#options.log
        .target("output")
        .warn("run", "cannot close the files of an instance's output", {
          id,
          error: messageChain(error).join(": "),
        });
    }
  }

  /** Waits for promises that the disk may never settle. */
  async #atMost(ms: number, promises: readonly Promise<void>[]): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const cancel = this.#options.host.after(ms, resolve);
    await Promise.race([promise, Promise.all(promises)]);
    cancel();
  }

  /** Removes uploaded programs that no instance has any more, once the disk knows that. */
  collect(): Promise<void> {
    const { state, log } = this.#options;
    return collectPrograms(this.#instances, this.#memory, state.binaries, log.target("memory"));
  }

  #record(kind: EventKind, instance: Instance, detail: Detail = {}): void {
    this.#journal.record(kind, { id: instance.id, name: instance.settings.name }, detail);
  }
}
