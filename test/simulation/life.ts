// One life of a daemon's core in a system in memory: everything that `daemon.ts` puts together, on doors
// that a simulation holds in its hands. When the life is over, nothing of it is called any more.

import type { Verdict } from "../../src/control/access.ts";
import { ControlServer } from "../../src/control.ts";
import type { DatagramSocket, SendResult } from "../../src/datagram.ts";
import { OrchestratorError } from "../../src/errors.ts";
import type { Host, SpawnRequest } from "../../src/host.ts";
import { Log, parseLogFilter } from "../../src/log.ts";
import { Orchestrator } from "../../src/orchestrator.ts";
import { OutboxPool } from "../../src/queue.ts";
import type { Accept } from "../../src/socket.ts";
import type { Store } from "../../src/store.ts";
import type { State } from "../../src/store/state.ts";
import { TelemetryExporter } from "../../src/telemetry.ts";
import type { FakeHost } from "../support/host.ts";
import type { Random } from "../support/random.ts";
import { memoryHistories, Shelf } from "./disk.ts";
import type { Ledger, Page } from "./ledger.ts";

const quiet = new Log(
  parseLogFilter("off"),
  () => {},
  () => 0,
);

const SERVED: Verdict = { kind: "served", by: "self" };

/** From this number on, descriptors are scarce. */
export const MAX_DESCRIPTOR = 900;

export interface LifeOptions {
  readonly random: Random;
  readonly host: FakeHost;
  readonly ledger: Ledger;
  /** Hashes of the programs that were uploaded. */
  readonly stored: Set<string>;
  /** Of this life: what its marks begin with. */
  readonly runId: string;
  readonly maxQueueBytes: number | undefined;
  /** What is wrong with the system now. */
  readonly faults: Faults;
  /** The telemetry server takes a connection. */
  serve(accept: Accept): void;
  send(datagram: Uint8Array, host: string, port: number): SendResult;
  onFault(error: unknown): void;
}

/** What is wrong with the system now. */
export interface Faults {
  isFull: boolean;
  /** The disk does not say that it has what it was given. */
  isRefusing: boolean;
  /** No descriptor is left: neither sockets nor programs are opened. */
  isOut: boolean;
  /** Every look at the clock takes so long. */
  creepMs: number;
}

export class Life {
  readonly orchestrator: Orchestrator;
  readonly server: ControlServer;
  readonly telemetry: TelemetryExporter;
  readonly shelf: Shelf;
  /** The sockets of instances, by their path. */
  readonly listeners: Map<string, Accept> = new Map();
  isOver = false;
  readonly #options: LifeOptions;
  /** What its marks begin with. */
  readonly runId: string;
  #runs = 0;
  #sockets = 0;

  constructor(options: LifeOptions) {
    this.#options = options;
    const { random, ledger, stored, faults, runId, maxQueueBytes, onFault } = options;
    const host = this.#host();
    this.runId = runId;
    const { after } = host;
    const disk = { random, after, isFull: () => faults.isFull, now: host.wallMs };
    this.shelf = new Shelf(stored, disk);
    const binaries = this.shelf as unknown as State["binaries"];
    this.telemetry = new TelemetryExporter({
      address: { kind: "tcp", host: "127.0.0.1", port: 1 },
      connect: (_address, accept) => this.#connect(accept),
      after,
      log: quiet.target("telemetry"),
    });
    this.orchestrator = new Orchestrator({
      host,
      log: quiet,
      state: { store: ledger as unknown as Store, binaries },
      env: {},
      openSocket: (id, accept) => this.#listen(id, accept),
      telemetry: this.telemetry,
      histories: memoryHistories(disk),
      pool: new OutboxPool(maxQueueBytes),
      guard: { add() {}, remove() {} },
      newMark: () => `${runId}.${++this.#runs}`,
      newCgroup: () => undefined,
      random: () => random.next() / 2 ** 32,
      onFault,
    });
    const socket: DatagramSocket = {
      address: { kind: "tcp", host: "127.0.0.1", port: 2 },
      send: (datagram, to, port) => options.send(datagram, to, port),
      close() {},
    };
    this.orchestrator.useSocket(socket);
    this.server = new ControlServer({
      orchestrator: this.orchestrator,
      binaries,
      log: quiet.target("control"),
      audit: quiet.target("audit"),
      after,
      now: host.now,
      onFault,
      maxDescriptor: MAX_DESCRIPTOR,
      access: { judge: () => this.#judge() },
    });
  }

  /** Takes over what an earlier daemon has left. */
  restore({ instances, links }: Page): void {
    this.orchestrator.restore([...instances.values()], [...links.values()]);
  }

  /** Who it is may have to be looked up. */
  #judge(): Verdict | Promise<Verdict> {
    const { random, host } = this.#options;
    if (random.chance(0.7)) return SERVED;
    return new Promise((resolve) => {
      host.after(random.size(0, 40), () => {
        if (!this.isOver) resolve(SERVED);
      });
    });
  }

  #listen(id: string, accept: Accept): { path: string; close(): void } {
    const path = `/run/${this.#options.runId}/${id}.${++this.#sockets}`;
    if (this.#options.faults.isOut) {
      throw new OrchestratorError("io", `Cannot listen on ${path}`, { cause: tooMany() });
    }
    this.listeners.set(path, accept);
    return { path, close: () => void this.listeners.delete(path) };
  }

  async #connect(accept: Accept): Promise<void> {
    const { random, host, faults, serve } = this.#options;
    const { promise, resolve } = Promise.withResolvers<void>();
    host.after(random.size(0, 50), resolve);
    await promise;
    if (this.isOver) return new Promise(() => {});
    if (faults.isOut || random.chance(0.2)) throw tooMany();
    serve(accept);
  }

  /** The system as this life sees it. */
  #host(): Host {
    const { host, faults } = this.#options;
    const ours = (action: () => void) => (): void => {
      if (!this.isOver) action();
    };
    return {
      spawn: (request) => {
        if (faults.isOut) {
          throw new OrchestratorError("cannot_run", "Cannot run it", { cause: tooMany() });
        }
        return host.spawn(this.#watched(request));
      },
      signalGroup: (group, signal) => host.signalGroup(group, signal),
      signalProcess: (process, signal) => host.signalProcess(process, signal),
      descriptorsLeft: () => (faults.isOut ? 0 : 60 * 8),
      childrenOf: (pid) => host.childrenOf(pid),
      memoryKills: () => undefined,
      readMark: (pid) => host.readMark(pid),
      readProcess: (pid) => host.readProcess(pid),
      resources: (process) => host.resources(process),
      setPriority: (pid, nice) => host.setPriority(pid, nice),
      snapshot: async () => {
        const found = await host.snapshot();
        return this.isOver ? new Promise(() => {}) : found;
      },
      now: () => {
        if (faults.creepMs > 0) host.stall(faults.creepMs);
        return host.now();
      },
      wallMs: host.wallMs,
      after: (ms, action) => host.after(ms, ours(action)),
    };
  }

  #watched(request: SpawnRequest): SpawnRequest {
    return {
      ...request,
      onExit: (exit) => {
        if (!this.isOver) request.onExit(exit);
      },
      onOutput: (stream, chunk) => (this.isOver ? undefined : request.onOutput(stream, chunk)),
      onOutputEnd: () => {
        if (!this.isOver) request.onOutputEnd();
      },
    };
  }
}

function tooMany(): Error {
  return Object.assign(new Error("too many open files"), { code: "EMFILE" });
}
