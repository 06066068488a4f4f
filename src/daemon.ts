// The daemon's composition root: options, wiring, signals, the order of shutdown.
//
//   start:  options → lock → state → guard → what a killed daemon left is ended → UDP → control
//           socket → the state tells of us → instances and links of before → "listening"
//   end:    no new control connections → instances stop → telemetry is handed over → state is
//           closed → sockets and folder are removed → the log is written out

import { join } from "node:path";

import {
  type Address,
  formatAddress,
  formatHostPort,
  plainAddress,
  type TcpAddress,
} from "./address.ts";
import { openCgroups } from "./host/cgroup.ts";
import { compileAsUsual, releaseCode } from "./host/code.ts";
import {
  handshakeLog,
  openAccess,
  readTls,
  renewTls,
  tcpWarning,
  warnOfKey,
} from "./daemon/access.ts";
import { claimSocket, openInstanceSocket, takeInstanceFolder } from "./daemon/claim.ts";
import { ControlServer } from "./control.ts";
import { bindDatagram, type DatagramSocket, numbered } from "./datagram.ts";
import { hinted, messageChain, OrchestratorError } from "./errors.ts";
import { makePrivateFolder } from "./files.ts";
import { LineWriter } from "./files/lines.ts";
import { descriptorLimit, isSignalIgnored, ownStatus, restoreSignals } from "./host/own.ts";
import { Guard } from "./host/guard.ts";
import { Histories } from "./output/history.ts";
import { type Host, systemHost } from "./host.ts";
import { CONTROL_RESERVED_DESCRIPTORS, FLUSH_MS, SAME_KEY_MS } from "./limits.ts";
import { escapeText, Log, parseLogFilter, QuietLog } from "./log.ts";
import { openNotifier } from "./host/notify.ts";
import { type DaemonOptions, parseDaemonOptions, parsePeer } from "./daemon/options.ts";
import { Rest } from "./daemon/rest.ts";
import { claimState, closeMemory, openMemory, takeOver } from "./daemon/state.ts";
import { Orchestrator } from "./orchestrator.ts";
import { OutboxPool } from "./queue.ts";
import { isIP } from "./ip.ts";
import { connect, listen, type Listener, type TlsListener } from "./socket.ts";
import { TelemetryExporter } from "./telemetry.ts";

/** A running daemon. */
export interface Daemon {
  /** With the port that was chosen if none was given. */
  readonly control: Address;
  readonly ipc: TcpAddress | undefined;
  /** Ends every instance, then everything else. */
  stop(): Promise<void>;
  /** Ends every instance at once and leaves nothing behind; for a second signal. */
  kill(): void;
}

/**
 * Starts a daemon in this process.
 * @throws the first thing that stands in the way, with everything else undone
 */
export async function startDaemon(options: DaemonOptions): Promise<Daemon> {
  const onFault = (error: unknown): void => {
    const stack = error instanceof Error ? error.stack : undefined;
    if (isOutOfMemory(error)) {
      pool.relieve(); // before anything else: all else needs memory
      daemonLog.error("run", "out of memory: half of what waits is dropped", {
        max_queue: pool.maxBytes,
        stack,
      });
      return;
    }
    daemonLog.error("run", `defect: ${messageChain(error).join(": ")}`, { stack });
  };
  const pool = new OutboxPool(options.maxQueueBytes);
  const host = systemHost(onFault);
  const filter = parseLogFilter(options.log);
  const log = new Log(filter, options.writeLog, host.wallMs);
  const daemonLog = log.target("daemon");
  if (filter.idle.length > 0) {
    daemonLog.warn("run", "log directives that match nothing here", {
      directives: filter.idle.join(","),
      hint: "levels and rooms are known, spans are not: info, router=trace",
    });
  }
  const undo: (() => void)[] = [];
  try {
    const access = openAccess(options, new QuietLog(log.target("control"), host.now));
    const tls = readTls(options);
    const lock =
      options.control.kind === "unix"
        ? await claimSocket(options.control.path, options.env, host)
        : undefined;
    if (lock !== undefined) undo.push(() => lock.release());
    const folder = takeInstanceFolder(options);
    undo.push(() => folder.remove());
    const state = openMemory(options, folder.path, daemonLog);
    undo.push(() => state.close());
    const runId = newRunId();
    const cgroups = openCgroups(runId);
    undo.push(() => cgroups?.remove());
    const guard = new Guard({
      runId,
      cgroup: cgroups?.path,
      log: log.target("guard"),
      searchPath: options.env["PATH"],
    });
    undo.push(() => guard.close());
    const { instances, links } = state.store.load();
    const before = await takeOver(state.store, instances, host, daemonLog);
    const telemetry =
      options.telemetry === undefined
        ? undefined
        : new TelemetryExporter({
            address: options.telemetry,
            connect: (address, accept) => connect(address, accept, onFault),
            after: host.after,
            log: log.target("telemetry"),
          });
    let sockets = 0;
    let runs = 0;
    const orchestrator = new Orchestrator({
      host,
      log,
      state,
      env: inheritedEnvironment(options.env),
      openSocket: (id, accept) => openInstanceSocket(folder.path, id, sockets++, accept, onFault),
      telemetry,
      histories: openHistories(options, join(state.folder, "output"), log, host),
      pool,
      guard,
      newMark: () => `${runId}.${++runs}`,
      newCgroup: (mark) => cgroups?.make(mark),
      random: Math.random,
      onFault,
    });
    const socket = await bindPeers(options, orchestrator, onFault);
    if (socket !== undefined) {
      undo.push(() => socket.close());
      daemonLog.info("run", "exchanging messages with other orchestrators", {
        socket: formatAddress(socket.address),
      });
    }
    const maxDescriptor = descriptorLimit() - CONTROL_RESERVED_DESCRIPTORS;
    const server = new ControlServer({
      orchestrator,
      binaries: state.binaries,
      access,
      maxDescriptor,
      log: log.target("control"),
      audit: log.target("audit"),
      after: host.after,
      now: host.now,
      onFault,
    });
    const listener = openControl(
      options,
      server,
      onFault,
      tls && { ...tls, maxDescriptor, refused: handshakeLog(log.target("control"), host.now) },
    );
    undo.push(() => listener.stop());
    const endRenewal = tls && renewTls(options, tls, listener, log.target("control"), host.after);
    undo.push(() => endRenewal?.());
    // From here on the state tells of us: what came to nothing before has left no trace in it.
    claimState(state.store, runId, daemonLog);
    orchestrator.journal.record("daemon_started", undefined, { pid: process.pid, before });
    // Nothing may fail from here on: what is started would outlive us. Nobody is served before.
    orchestrator.restore(instances, links);
    log.target("control").info("run", "listening", { socket: formatAddress(listener.address) });
    const warning = tcpWarning(options);
    if (warning !== undefined) daemonLog.warn("run", warning);
    if (process.pid === 1) {
      daemonLog.warn(
        "run",
        "what loses its parent is not reaped: this is the first process of a container",
        {
          hint: "put an init before it, as docker run --init does",
        },
      );
    }
    warnOfKey(options, log.target("control"));
    if (state.isKept) daemonLog.info("run", "keeping state", { folder: state.folder });
    else daemonLog.info("run", "keeping no state after the end");
    const rest = new Rest({
      after: host.after,
      now: host.now,
      onRest: () => void releaseCode().catch(onFault),
    });
    orchestrator.journal.follow(({ kind }) => {
      if (kind === "started") rest.stir();
    });
    const notifier = await openNotifier(options.env, daemonLog);
    notifier?.ready();
    compileAsUsual(); // until here little was run often, and whoever compiles would keep programs waiting
    let ending: Promise<void> | undefined;
    const end = async (): Promise<void> => {
      notifier?.stopping();
      rest.close();
      endRenewal?.();
      listener.stop();
      await orchestrator.shutDown();
      orchestrator.journal.record("daemon_stopped", undefined, { pid: process.pid });
      await telemetry?.close(FLUSH_MS);
      await orchestrator.commit(); // the last answers wait for it
      server.close();
      socket?.close();
      guard.close();
      cgroups?.remove();
      closeMemory(state, daemonLog);
      folder.remove();
      lock?.release();
      notifier?.close();
      daemonLog.info("run", "stopped");
    };
    return {
      control: listener.address,
      ipc: socket?.address,
      stop: () => (ending ??= end()),
      kill: () => {
        orchestrator.kill();
        endRenewal?.();
        listener.stop();
        closeMemory(state, daemonLog);
        folder.remove();
        lock?.release();
      },
    };
  } catch (error) {
    for (const action of undo.reverse()) action();
    throw error;
  }
}

/** Whether the system gave no memory, where it does not end who asks for too much. */
function isOutOfMemory(error: unknown): boolean {
  return error instanceof RangeError && error.message === "Out of memory";
}

/** What tells the runs of this daemon from those of every other one. */
function newRunId(): string {
  return crypto.randomUUID().replaceAll("-", "").slice(0, 16);
}

/** @throws `io` if it cannot listen there */
function openControl(
  { control }: DaemonOptions,
  server: ControlServer,
  onFault: (error: unknown) => void,
  tls: TlsListener | undefined,
): Listener {
  try {
    return listen(control, (connection) => server.accept(connection), onFault, tls);
  } catch (error) {
    const files = tls === undefined ? "" : ", or look at what --tls-cert and --tls-key name";
    throw hinted(error, `choose another --control-socket${files}`);
  }
}

/** What instances print goes to files beside the rest of the state. */
function openHistories(options: DaemonOptions, folder: string, log: Log, host: Host): Histories {
  makePrivateFolder(folder);
  const outputLog = log.target("output");
  const { outputFiles, outputFileBytes } = options;
  return new Histories({
    folder,
    files: outputFiles,
    fileBytes: outputFileBytes,
    onTrouble: (id, fault) => {
      if (fault === undefined) {
        outputLog.info("run", "writing the output of an instance to disk again", { id });
        return;
      }
      outputLog.warn("run", "cannot write the output of an instance to disk, trying again", {
        id,
        error: messageChain(fault).join(": "),
      });
    },
    now: host.wallMs,
    after: host.after,
  });
}

const IPC_HINT = "choose another --ipc-socket";

async function bindPeers(
  { ipc: address, peers }: DaemonOptions,
  orchestrator: Orchestrator,
  onFault: (error: unknown) => void,
): Promise<DatagramSocket | undefined> {
  if (address === undefined) return undefined;
  const host = !isIP(address.host) ? await resolveHost(address) : address.host;
  const socket = await bindDatagram(
    { ...address, host },
    (datagram, from, port) => {
      const peer = numbered(from);
      orchestrator.links.heard(peer, port);
      orchestrator.receiver.receive(datagram, peer, port);
    },
    () => orchestrator.links.foundNobody(),
    onFault,
  ).catch((error: unknown) => {
    throw hinted(error, IPC_HINT);
  });
  if (peers !== undefined) orchestrator.receiver.listenTo(await resolvePeers(peers));
  orchestrator.useSocket(socket);
  return socket;
}

/** Every address of every peer that was declared, with its port if one was given. @throws `io` */
async function resolvePeers(peers: readonly string[]): Promise<ReadonlySet<string>> {
  const { lookup } = await import("node:dns/promises");
  const declared = new Set<string>();
  for (const peer of peers) {
    const { host, port } = parsePeer(peer);
    try {
      for (const { address } of await lookup(host, { all: true })) {
        const plain = numbered(plainAddress(address));
        declared.add(port === 0 ? plain : formatHostPort(plain, port));
      }
    } catch (cause) {
      throw new OrchestratorError("io", `Cannot listen to the peer ${JSON.stringify(peer)}`, {
        cause,
        hint: "name an address, or leave out this --peer",
      });
    }
  }
  return declared;
}

async function resolveHost(address: TcpAddress): Promise<string> {
  const { lookup } = await import("node:dns/promises"); // few need it, and it takes its time
  try {
    return (await lookup(address.host)).address;
  } catch (error) {
    throw new OrchestratorError("io", `Cannot listen on ${formatAddress(address)} (UDP)`, {
      cause: error,
      hint: IPC_HINT,
    });
  }
}

/** Variables that are the orchestrator's own: no instance inherits them. */
const OWN_VARIABLE =
  /^(VEECLE_(ORCHESTRATOR_.*|TELEMETRY_SOCKET|IPC_SOCKET|RUNTIME_ID|RUNTIME_RUN)|NOTIFY_SOCKET|WATCHDOG_(USEC|PID))$/;

function inheritedEnvironment(
  env: Readonly<Record<string, string | undefined>>,
): Record<string, string> {
  const inherited: Record<string, string> = {};
  for (const [key, value] of Object.entries(env)) {
    if (value !== undefined && !OWN_VARIABLE.test(key)) inherited[key] = value;
  }
  return inherited;
}

/** Runs a daemon until a signal ends it; returns the exit code. */
export async function main(argv: readonly string[]): Promise<number> {
  const log = new LineWriter(2);
  const signals = new Signals(log);
  let daemon: Daemon;
  try {
    const options = readOptions(argv);
    if (typeof options === "string") return await print(options);
    daemon = await startDaemon({ ...options, writeLog: (line) => log.write(`${line}\n`) });
  } catch (error) {
    return reportFatal(error, log);
  }
  const fault = (error: unknown): void => {
    log.write(
      `defect: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`,
    );
  };
  process.on("uncaughtException", fault);
  process.on("unhandledRejection", fault);
  await signals.first;
  signals.onSecond = () => daemon.kill();
  await daemon.stop();
  log.flush();
  return 0;
}

/** Prints a page, also where nobody reads it. @throws `io` if it cannot be written */
async function print(page: string): Promise<number> {
  const { ClosedPipe, writeOutput } = await import("./files/stdout.ts");
  try {
    await writeOutput(page);
  } catch (error) {
    if (!(error instanceof ClosedPipe)) throw error;
  }
  return 0;
}

/** @throws `misuse` */
function readOptions(argv: readonly string[]): ReturnType<typeof parseDaemonOptions> {
  try {
    return parseDaemonOptions(argv, process.env);
  } catch (error) {
    throw hinted(error, "--help prints all options");
  }
}

function reportFatal(error: unknown, log: LineWriter): number {
  log.flush();
  const [first, ...causes] = messageChain(error);
  const lines = [`error: ${first}`, ...causes.map((cause) => `caused by: ${cause}`)];
  if (error instanceof OrchestratorError && error.hint !== undefined) {
    lines.push(`hint: ${error.hint}`);
  }
  log.write(lines.map((line) => `${escapeText(line)}\n`).join(""));
  return error instanceof OrchestratorError && error.code === "misuse" ? 2 : 1;
}

/** The first signal stops the daemon, a second one ends it at once. Heard from the very beginning. */
class Signals {
  /** Settles with the first signal. */
  readonly first: Promise<void>;
  /** What a second signal ends; before that there is nothing to end. */
  onSecond: () => void = () => {};

  constructor(log: LineWriter) {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.first = promise;
    let stoppingSince: number | undefined;
    const onSignal = (signal: string): void => {
      resolve();
      const now = performance.now();
      if (stoppingSince !== undefined) {
        if (signal === "SIGINT" && now - stoppingSince < SAME_KEY_MS) return;
        this.onSecond();
        log.write(`received ${signal} again, killed all instances\n`);
        log.flush();
        process.exit(signal === "SIGINT" ? 130 : 143);
      }
      stoppingSince = now;
    };
    process.on("SIGINT", onSignal);
    process.on("SIGTERM", onSignal);
    // Sent by tools that turn logs: nobody means the end of all instances by them.
    for (const signal of ["SIGUSR1", "SIGUSR2"] as const) {
      process.on(signal, () => log.write(`received ${signal}, which means nothing here\n`));
    }
    // A closed terminal ends the daemon as SIGTERM does, unless it was started with nohup.
    const status = ownStatus();
    restoreSignals(status);
    if (!isSignalIgnored(status, 1)) process.on("SIGHUP", onSignal);
  }
}

// Nothing that is still open may keep a daemon alive that has ended.
if (import.meta.main) process.exit(await main(process.argv.slice(2)));
