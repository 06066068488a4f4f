// The rules that span owners: what a request means for processes, links, sockets and output.
//
// The only file that knows all of them. A refusal is thrown here and answered where it came in.

import type { DatagramSocket } from "./datagram.ts";
import { messageChain, OrchestratorError } from "./errors.ts";
import { removeFile } from "./files.ts";
import type { Histories, OutputStorage } from "./history.ts";
import type { Host } from "./host.ts";
import { FLUSH_MS, LAST_OUTPUT_MS, MAX_INSTANCES, MAX_LINKS } from "./limits.ts";
import { type Log, QuietLog } from "./log.ts";
import { TypeTable } from "./typename.ts";
import {
  formatQueueBound,
  formatTarget,
  type InstanceId,
  type LinkKey,
  type LinkSettings,
  type LinkTarget,
  type Priority,
} from "./model.ts";
import { Notices } from "./notices.ts";
import { Outbox } from "./outbox.ts";
import { type Follower, Output } from "./output.ts";
import { PeerReceiver, PeerTarget } from "./peer.ts";
import { Port } from "./port.ts";
import type { Info, LinkInfo, RuntimeInfo } from "./protocol.ts";
import { OutboxPool, type Target } from "./queue.ts";
import { type Link, Router, Source } from "./router.ts";
import type { Accept } from "./socket.ts";
import { Supervisor } from "./supervisor.ts";
import type { TelemetryExporter } from "./telemetry.ts";

/** A registered instance and what belongs to it. */
interface Instance {
  readonly id: InstanceId;
  readonly path: string;
  readonly privileged: boolean;
  /** Whether the file is an upload, which goes when the instance does. */
  readonly uploaded: boolean;
  readonly supervisor: Supervisor;
  readonly port: Port;
  readonly outbox: Outbox;
  readonly source: Source;
  readonly output: Output;
  readonly storage: OutputStorage | undefined;
  readonly closeSocket: () => void;
  isRemoving: boolean;
}

/** What the orchestrator is built on; the daemon hands in the real doors. */
export interface OrchestratorOptions {
  readonly host: Host;
  readonly log: Log;
  /** The environment that instances get, with the two variables of their own added. */
  readonly env: Readonly<Record<string, string>>;
  /** Opens the socket of an instance; `address` goes into its environment. */
  openSocket(id: InstanceId, accept: Accept): { readonly path: string; close(): void };
  readonly telemetry: TelemetryExporter | undefined;
  /** Where the output of instances is kept; without it, what nobody follows is forgotten. */
  readonly histories?: Histories | undefined;
  /** What all queues together may hold. */
  readonly maxQueueBytes?: number | undefined;
  readonly onFault: (error: unknown) => void;
}

/** The instances and links of one daemon. */
export class Orchestrator {
  readonly #options: OrchestratorOptions;
  readonly #instances: Map<InstanceId, Instance> = new Map();
  readonly #router: Router;
  readonly #pool: OutboxPool;
  readonly #notices: Notices;
  readonly #types: TypeTable = new TypeTable();
  readonly #peers: Map<string, PeerTarget> = new Map();
  readonly #quiet: QuietLog;
  /** What arrives from other orchestrators. */
  readonly receiver: PeerReceiver;
  #socket: DatagramSocket | undefined;
  #isEnding = false;

  constructor(options: OrchestratorOptions) {
    this.#options = options;
    this.#quiet = new QuietLog(options.log.target("router"), options.host.now);
    this.#pool = new OutboxPool(options.maxQueueBytes);
    this.#notices = new Notices(
      (id, typeName, notice) => this.#instances.get(id)?.port.notice(typeName, notice),
      options.host.after,
    );
    this.#router = new Router((key, reason, count, source) => {
      this.#notices.add(key, reason, count, source);
      const to = formatTarget(key.to);
      this.#quiet.warn(`${reason} ${to}`, "run", "dropped messages", {
        reason,
        type: key.typeName,
        to,
        count,
      });
    }, this.#pool);
    this.receiver = new PeerReceiver(
      this.#router,
      new QuietLog(options.log.target("peer"), options.host.now),
    );
  }

  /** From now on links may lead to other orchestrators. */
  useSocket(socket: DatagramSocket): void {
    this.#socket = socket;
  }

  /**
   * Registers an instance and opens its socket. An uploaded file belongs to the instance from then on.
   * @throws `already_exists`, `limit_exceeded` or `io`
   */
  add(id: InstanceId, path: string, privileged: boolean, uploaded: boolean = false): void {
    this.checkNew(id);
    const { host, log, env, telemetry, histories } = this.#options;
    const outbox = new Outbox(this.#pool);
    const source: Source = new Source(id, (isWaiting) => port.wait(isWaiting));
    const storage = histories?.open(id);
    const output = new Output(storage);
    const port: Port = new Port({
      id,
      types: this.#types,
      router: this.#router,
      source,
      outbox,
      telemetry,
      quiet: new QuietLog(log.target("port"), host.now),
      control: privileged
        ? async (request) => {
            if (request.kind === "Start") this.start(request.id, request.priority);
            else await this.stop(request.id);
          }
        : undefined,
      after: host.after,
      now: host.now,
    });
    const socket = this.#options.openSocket(id, (connection) => port.accept(connection));
    const supervisor = new Supervisor({
      id,
      path,
      env: { ...env, VEECLE_IPC_SOCKET: socket.path, VEECLE_RUNTIME_ID: id },
      host,
      log: log.target("supervisor"),
      output,
      events: {
        started: () => {
          // A connection that is still open belongs to a process of before.
          port.reset();
          outbox.open();
        },
        exited: () => outbox.close(),
      },
    });
    this.#instances.set(id, {
      id,
      path,
      privileged,
      uploaded,
      supervisor,
      port,
      outbox,
      source,
      output,
      storage,
      closeSocket: () => socket.close(),
      isRemoving: false,
    });
  }

  /** @throws `already_exists` or `limit_exceeded` if an instance with this id cannot be added */
  checkNew(id: InstanceId): void {
    if (this.#isEnding) throw ending(`Cannot add instance "${id}"`);
    if (this.#instances.has(id)) {
      throw new OrchestratorError(
        "already_exists",
        `Cannot add instance "${id}": an instance with this id is registered already`,
      );
    }
    if (this.#instances.size >= MAX_INSTANCES) {
      throw new OrchestratorError(
        "limit_exceeded",
        `Cannot add instance "${id}": ${MAX_INSTANCES} are registered, which is the limit; remove one first`,
      );
    }
  }

  /** @throws `not_found`, or `wrong_state` while it runs */
  remove(id: InstanceId): void {
    const instance = this.#find(id, "remove");
    const { state, pid } = instance.supervisor;
    if (instance.isRemoving) {
      throw new OrchestratorError(
        "wrong_state",
        `Cannot remove instance "${id}": it is being removed already`,
      );
    }
    if (state !== "stopped") {
      throw new OrchestratorError(
        "wrong_state",
        `Cannot remove instance "${id}": it is ${state} (pid ${pid ?? "gone"}); stop it first`,
      );
    }
    void this.#discard(instance);
  }

  /** @throws `not_found`, `wrong_state` or `cannot_run` */
  start(id: InstanceId, priority: Priority | undefined): void {
    const instance = this.#find(id, "start");
    if (this.#isEnding) throw ending(`Cannot start instance "${id}"`);
    if (instance.isRemoving) {
      throw new OrchestratorError(
        "wrong_state",
        `Cannot start instance "${id}": it is being removed`,
      );
    }
    instance.supervisor.start(priority);
  }

  /** @throws `not_found`, `wrong_state` or `stop_failed` */
  async stop(id: InstanceId): Promise<void> {
    await this.#find(id, "stop").supervisor.stop();
  }

  /**
   * Adds a link; the same one again takes over the settings that are given, and keeps the others.
   * @throws `not_found`, `not_configured` or `limit_exceeded`
   */
  link(key: LinkKey, settings: Partial<LinkSettings> = {}): void {
    const known = this.#router.findLink(key);
    if (known !== undefined) {
      this.#router.addLink(key, known.target, settings);
      return;
    }
    const subject = `Cannot link ${JSON.stringify(key.typeName)} to ${formatTarget(key.to)}`;
    if (key.from !== undefined && !this.#instances.has(key.from)) {
      throw unknownInstance(subject, key.from);
    }
    if (this.#router.linkCount >= MAX_LINKS) {
      throw new OrchestratorError(
        "limit_exceeded",
        `${subject}: there are ${MAX_LINKS} links, which is the limit; remove one first`,
      );
    }
    this.#router.addLink(key, this.#target(key.to, subject), settings);
  }

  /** @throws `not_found` */
  unlink(key: LinkKey): void {
    if (this.#router.removeLink(key)) {
      this.#forgetPeers();
      return;
    }
    const from = key.from === undefined ? "" : ` from ${key.from}`;
    throw new OrchestratorError(
      "not_found",
      `Cannot unlink ${JSON.stringify(key.typeName)}${from} to ${formatTarget(key.to)}: there is no such link`,
    );
  }

  /** Follows the output of an instance; the returned function ends that. @throws `not_found` */
  follow(id: InstanceId, follower: Follower): () => void {
    const { output } = this.#find(id, "follow the output of");
    output.follow(follower);
    return () => output.unfollow(follower);
  }

  /** Stops and removes every instance and every link. @throws `stop_failed` for what is left */
  async clear(): Promise<void> {
    const instances = [...this.#instances.values()];
    for (const instance of instances) instance.isRemoving = true;
    for (const { key } of [...this.#router.links()]) this.#router.removeLink(key);
    this.#forgetPeers();
    const faults = await this.#stopAll(instances);
    const discarded: Promise<void>[] = [];
    for (const instance of instances) {
      if (instance.supervisor.state === "stopped") discarded.push(this.#discard(instance));
      else instance.isRemoving = false;
    }
    await this.#atMost(FLUSH_MS, discarded);
    if (faults.length > 0) {
      throw new OrchestratorError("stop_failed", "Cannot clear all instances", {
        cause: faults[0],
      });
    }
  }

  /** Stops every instance, for the end of the daemon. What cannot be stopped is in the log. */
  async shutDown(): Promise<void> {
    this.#isEnding = true;
    const instances = [...this.#instances.values()];
    for (const instance of instances) instance.isRemoving = true;
    const log = this.#options.log.target("orchestrator");
    for (const fault of await this.#stopAll(instances)) {
      log.error("run", messageChain(fault).join(": "));
    }
    const last = instances.map(({ output }) => output.quiet());
    await this.#atMost(LAST_OUTPUT_MS, last); // what escaped with it may hold the output open
    const discarded = instances.map((instance) => this.#discard(instance));
    await this.#atMost(FLUSH_MS, discarded);
  }

  /** Sends SIGKILL to everything, without an answer. */
  kill(): void {
    for (const { supervisor } of this.#instances.values()) {
      try {
        supervisor.kill();
      } catch (error) {
        this.#options.onFault(error); // one that may not be signalled must not save the others
      }
    }
  }

  info(): Info {
    const runtimes: Record<InstanceId, RuntimeInfo> = {};
    for (const id of [...this.#instances.keys()].sort()) {
      runtimes[id] = runtimeInfo(this.#instances.get(id) as Instance);
    }
    const links: Record<string, string[]> = {};
    const routes = [...this.#router.links()].map(linkInfo);
    routes.sort((a, b) => (a.type_name < b.type_name ? -1 : a.type_name > b.type_name ? 1 : 0));
    for (const { type_name, to } of routes) {
      const targets = Object.hasOwn(links, type_name) ? links[type_name] : undefined;
      if (targets === undefined) define(links, type_name, [to]);
      else if (!targets.includes(to)) targets.push(to);
    }
    const { telemetry } = this.#options;
    return {
      runtimes,
      links,
      routes,
      telemetry:
        telemetry === undefined
          ? null
          : { sent: telemetry.sent, dropped: telemetry.dropped, queued: telemetry.queued },
      pid: process.pid,
    };
  }

  async #stopAll(instances: readonly Instance[]): Promise<unknown[]> {
    const running = instances.filter(({ supervisor }) => supervisor.state !== "stopped");
    const results = await Promise.allSettled(running.map(({ supervisor }) => supervisor.stop()));
    return results.filter((result) => result.status === "rejected").map(({ reason }) => reason);
  }

  /** The promise settles when the instance's output is off the disk; at the daemon's end it stays. */
  #discard(instance: Instance): Promise<void> {
    const { id } = instance;
    if (this.#instances.get(id) !== instance) return Promise.resolve(); // by somebody else meanwhile
    this.#instances.delete(id);
    this.#router.removeInstance(id);
    instance.port.reset();
    instance.outbox.close();
    instance.closeSocket();
    instance.supervisor.release();
    instance.output.end();
    if (instance.uploaded) removeFile(instance.path);
    return this.#closeOutput(instance);
  }

  async #closeOutput({ id, output, storage }: Instance): Promise<void> {
    const closed = output.close();
    try {
      if (this.#isEnding || storage === undefined) await closed;
      else await this.#options.histories?.remove(id, storage.files, closed);
    } catch (error) {
      const log = this.#options.log.target("output");
      log.warn("run", "cannot close the files of an instance's output", {
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

  /** Other orchestrators to which no link leads any more. */
  #forgetPeers(): void {
    const used = new Set([...this.#router.links()].map(({ target }) => target));
    for (const [name, peer] of this.#peers) if (!used.has(peer)) this.#peers.delete(name);
  }

  #target(to: LinkTarget, subject: string): Target {
    if (to.kind === "instance") {
      const instance = this.#instances.get(to.id);
      if (instance === undefined) throw unknownInstance(subject, to.id);
      return instance.outbox;
    }
    if (this.#socket === undefined) {
      throw new OrchestratorError(
        "not_configured",
        `${subject}: this orchestrator was started without --ipc-socket`,
      );
    }
    const name = formatTarget(to);
    let peer = this.#peers.get(name);
    if (peer === undefined) {
      peer = new PeerTarget(this.#socket, to.host, to.port, this.#pool.translator);
      this.#peers.set(name, peer);
    }
    return peer;
  }

  #find(id: InstanceId, verb: string): Instance {
    const instance = this.#instances.get(id);
    if (instance === undefined) throw unknownInstance(`Cannot ${verb} instance "${id}"`, id);
    return instance;
  }
}

function ending(subject: string): OrchestratorError {
  return new OrchestratorError("wrong_state", `${subject}: the orchestrator is stopping`);
}

function unknownInstance(subject: string, id: InstanceId): OrchestratorError {
  return new OrchestratorError("not_found", `${subject}: no instance with the id ${id}`);
}

function runtimeInfo(instance: Instance): RuntimeInfo {
  const { supervisor, port, source } = instance;
  const { exit } = supervisor;
  return {
    running: supervisor.pid !== undefined,
    binary: instance.path,
    privileged: instance.privileged,
    state: supervisor.state,
    pid: supervisor.pid ?? null,
    connected: port.isConnected,
    dialect: port.dialect ?? null,
    held: source.isHeld,
    exit:
      exit === undefined
        ? null
        : exit.signal === undefined
          ? { code: exit.code ?? 0 }
          : { signal: exit.signal },
    messages: { received: source.received, unlinked: source.unlinked, refused: source.refused },
  };
}

function linkInfo({ key, queue }: Link): LinkInfo {
  return {
    type_name: key.typeName,
    from: key.from ?? null,
    to: formatTarget(key.to),
    queue: formatQueueBound(queue.settings),
    on_full: queue.settings.onFull,
    routed: queue.routed,
    delivered: queue.delivered,
    queued: queue.queued,
    dropped: Object.fromEntries(queue.dropped),
  };
}

/** Sets a key as data, whatever it is called; a plain assignment to `__proto__` would not. */
function define(object: Record<string, string[]>, key: string, value: string[]): void {
  Object.defineProperty(object, key, { value, enumerable: true, writable: true });
}
