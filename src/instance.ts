// One registered instance and what belongs to it: its process, its socket, its queue, its output.
//
// Puts the parts together and tells of them; which requests are allowed is the orchestrator's.

import type { Guard } from "./host/guard.ts";
import type { Histories, OutputStorage } from "./output/history.ts";
import type { RuntimeInfo } from "./protocol/info.ts";
import type { Detail, EventKind } from "./journal.ts";
import { exitFields, type InstanceId } from "./model.ts";
import { Outbox } from "./outbox.ts";
import { Output } from "./output.ts";
import { Port, type PortOptions } from "./port.ts";
import type { OutboxPool } from "./queue.ts";
import type { StoredStatus } from "./store/records.ts";
import { Source } from "./router.ts";
import type { InstanceSettings } from "./settings.ts";
import type { Accept } from "./socket.ts";
import { isKin } from "./supervisor/kin.ts";
import type { SupervisorOptions } from "./supervisor/options.ts";
import { Supervisor } from "./supervisor.ts";

/** Where the processes of an instance connect. */
export interface InstanceSocket {
  readonly path: string;
  /** Opens it again if somebody has removed it; absent where nobody can. @throws `io` */
  restore?(): void;
  close(): void;
}

export interface InstanceOptions {
  readonly id: InstanceId;
  readonly path: string;
  /** SHA-256 of an uploaded program, which `path` is made of. */
  readonly binary: string | null;
  readonly settings: InstanceSettings;
  /** Of the system, since it was started. */
  readonly bootId: string | undefined;
  readonly pool: OutboxPool;
  /** Where its output is kept. */
  readonly histories: Histories;
  /** What every instance inherits. */
  readonly env: Readonly<Record<string, string>>;
  readonly port: Omit<PortOptions, "id" | "source" | "outbox" | "control" | "connected" | "admits">;
  readonly supervisor: Omit<
    SupervisorOptions,
    "id" | "output" | "events" | "program" | "prepare" | "settings"
  >;
  /** Carries out what a privileged instance asks for. */
  control(request: Parameters<PortOptions["control"]>[0]): Promise<void>;
  openSocket(id: InstanceId, accept: Accept): InstanceSocket;
  /** @throws `cannot_run` if an uploaded program is not any more what was uploaded */
  verifyProgram(hash: string): Promise<void>;
  /** Is told of every process, to end it if we cannot. */
  readonly guard: Pick<Guard, "add" | "remove">;
  happened(instance: Instance, kind: EventKind, detail: Detail): void;
}

/** Everything that the answer to `Info` is made of, and what was made of it. */
type Told = Pick<Source, "received" | "unlinked" | "refused" | "isHeld"> &
  Pick<Port, "isConnected" | "dialect"> &
  Pick<Supervisor, "changes"> &
  Pick<Instance, "settings" | "path" | "binary"> & {
    readonly epochMs: number;
    readonly member: Buffer;
  };

export class Instance {
  readonly id: InstanceId;
  path: string;
  binary: string | null;
  settings: InstanceSettings;
  readonly outbox: Outbox;
  readonly source: Source;
  readonly output: Output;
  readonly port: Port;
  readonly supervisor: Supervisor;
  /** Requests that are about to remove it: it may not be started as long as one of them is left. */
  removals = 0;
  readonly #closeSocket: () => void;
  readonly #bootId: string | undefined;
  readonly #histories: Histories;
  readonly #storage: OutputStorage;
  /** The last answer to `Info`, and what it was made of. */
  #told: Told | undefined;

  /** @throws `io` if its socket cannot be opened */
  constructor(options: InstanceOptions) {
    const { id, control } = options;
    this.id = id;
    this.path = options.path;
    this.binary = options.binary;
    this.settings = options.settings;
    this.#bootId = options.bootId;
    this.outbox = new Outbox(options.pool);
    this.source = new Source(id, (isWaiting) => this.port.wait(isWaiting));
    this.#histories = options.histories;
    this.#storage = options.histories.open(id);
    this.output = new Output(this.#storage);
    this.port = new Port({
      ...options.port,
      id,
      source: this.source,
      outbox: this.outbox,
      control: async (request) => {
        if (!this.settings.privileged) return false;
        await control(request);
        return true;
      },
      admits: ({ origin }) => {
        // Without the kernel's word it is the mode of the socket and its folder that keeps others out.
        if (origin?.kind !== "unix" || origin.credentials === undefined) return true;
        return isKin(options.supervisor.host, origin.credentials.pid, this.supervisor.identity);
      },
      connected: (isConnected) => {
        options.happened(this, isConnected ? "connected" : "disconnected", {});
      },
    });
    const socket = options.openSocket(id, (connection) => this.port.accept(connection));
    this.#closeSocket = () => socket.close();
    this.supervisor = new Supervisor({
      ...options.supervisor,
      id,
      output: this.output,
      settings: () => this.settings,
      prepare: async () => {
        if (this.binary !== null) await options.verifyProgram(this.binary);
      },
      program: () => {
        socket.restore?.();
        const own = { VEECLE_IPC_SOCKET: socket.path, VEECLE_RUNTIME_ID: id };
        return { path: this.path, env: { ...options.env, ...this.settings.env, ...own } };
      },
      events: {
        started: (run) => {
          // In the next turn: to look at a process in the midst of its start takes long.
          options.supervisor.host.after(0, () => {
            const { pid, startTicks } = run;
            if (startTicks !== undefined) options.guard.add(pid, startTicks);
          });
          // A connection that is still open belongs to a process of before.
          this.port.reset();
          this.source.restarted();
          this.outbox.open();
        },
        exited: () => this.outbox.close(),
        gone: ({ pid, startTicks }) => {
          if (startTicks !== undefined) options.guard.remove(pid, startTicks);
        },
        happened: (kind, detail) => options.happened(this, kind, detail),
      },
    });
  }

  get isRemoving(): boolean {
    return this.removals > 0;
  }

  /** Meant to run: it runs, or is about to be started again. */
  get isWanted(): boolean {
    const { state } = this.supervisor;
    return state === "running" || state === "waiting";
  }

  /** There is a process of it. */
  get isBusy(): boolean {
    const { state } = this.supervisor;
    return state === "running" || state === "stopping";
  }

  /** What is remembered of its process. */
  get status(): StoredStatus {
    const { supervisor } = this;
    const { identity, state, reason } = supervisor;
    const { pid, startTicks, mark } = identity ?? {};
    const isThere = supervisor.pid !== undefined && pid !== undefined && mark !== undefined;
    return {
      wanted: this.isWanted,
      failed: state === "failed" ? (reason ?? "") : null,
      priority: supervisor.priority ?? null,
      last: supervisor.last,
      run:
        isThere && startTicks !== undefined && this.#bootId !== undefined
          ? { pid, startTicks, bootId: this.#bootId, mark }
          : null,
    };
  }

  /**
   * Closes and forgets everything but a process that still runs. Settles when its output is off the
   * disk, or closed if it is kept there.
   * @throws the system's error
   */
  close(keepsOutput: boolean): Promise<void> {
    this.port.reset();
    this.outbox.close();
    this.#closeSocket();
    this.supervisor.discard();
    this.output.end();
    const closed = this.output.close();
    return keepsOutput ? closed : this.#histories.remove(this.id, this.#storage.files, closed);
  }

  /**
   * What `Info` tells of it: `,"id":{…}`, kept as long as nothing of it changes.
   * `epochMs` is the time since the epoch, in whole ms, at which the host's clock began.
   */
  infoMember(epochMs: number): Buffer {
    const { supervisor, port, source } = this;
    const told = this.#told;
    if (
      told?.received === source.received &&
      told.unlinked === source.unlinked &&
      told.refused === source.refused &&
      told.isHeld === source.isHeld &&
      told.isConnected === port.isConnected &&
      told.dialect === port.dialect &&
      told.changes === supervisor.changes &&
      told.epochMs === epochMs &&
      told.settings === this.settings &&
      told.path === this.path &&
      told.binary === this.binary
    ) {
      return told.member;
    }
    const member = Buffer.from(`,"${this.id}":${JSON.stringify(this.#info(epochMs))}`);
    const { received, unlinked, refused, isHeld } = source;
    const { isConnected, dialect } = port;
    const { changes } = supervisor;
    const { settings, path, binary } = this;
    this.#told = {
      received,
      unlinked,
      refused,
      isHeld,
      isConnected,
      dialect,
      changes,
      epochMs,
      settings,
      path,
      binary,
      member,
    };
    return member;
  }

  #info(epochMs: number): RuntimeInfo {
    const { supervisor, port, source, settings } = this;
    const { startedMs, dueMs } = supervisor;
    const toWall = (ms: number | undefined): number | null =>
      ms === undefined ? null : Math.round(ms) + epochMs;
    return {
      running: supervisor.pid !== undefined,
      binary: this.path,
      privileged: settings.privileged,
      name: settings.name,
      state: supervisor.state,
      reason: supervisor.reason ?? null,
      pid: supervisor.pid ?? null,
      connected: port.isConnected,
      dialect: port.dialect ?? null,
      held: source.isHeld,
      exit: supervisor.exit === undefined ? null : exitFields(supervisor.exit),
      exit_by_stop: supervisor.last?.wasStopped ?? false,
      started: toWall(startedMs),
      due: toWall(dueMs),
      restarts: supervisor.restartCount,
      args: settings.args,
      env: Object.keys(settings.env),
      cwd: settings.cwd,
      restart: settings.restart,
      restart_delay_ms: settings.restartDelayMs,
      stop_signal: settings.stopSignal,
      stop_grace_ms: settings.stopGraceMs,
      priority: supervisor.priority ?? settings.priority,
      owner: settings.owner,
      hash: this.binary,
      messages: { received: source.received, unlinked: source.unlinked, refused: source.refused },
    };
  }
}
