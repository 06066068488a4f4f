// The daemon's composition root: options, wiring, signals, the order of shutdown.
//
//   start:  options → lock → folder for instance sockets → UDP → control socket → "listening"
//   end:    no new control connections → instances stop → telemetry is handed over → sockets and
//           folder are removed → the log is written out

import { readFileSync } from "node:fs";
import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";

import {
  type Address,
  formatAddress,
  parseAddress,
  parseTcpAddress,
  socketPathFault,
  type TcpAddress,
} from "./address.ts";
import { VERSION } from "./cli/version.ts";
import { defaultControlAddress } from "./client.ts";
import { ControlServer } from "./control.ts";
import { bindDatagram, type DatagramSocket } from "./datagram.ts";
import { messageChain, OrchestratorError, systemCode } from "./errors.ts";
import {
  type FileLock,
  isListening,
  isOtherFile,
  isSignalIgnored,
  LineWriter,
  makePrivateFolder,
  type OwnFolder,
  takeFolder,
  tryLock,
} from "./files.ts";
import { Histories } from "./history.ts";
import { type Host, systemHost, wallClock } from "./host.ts";
import { FLUSH_MS, MAX_FRAME_BYTES } from "./limits.ts";
import { Log, parseLogFilter } from "./log.ts";
import { parseSize } from "./model.ts";
import { Orchestrator } from "./orchestrator.ts";
import { connect, DISCARD, listen, type Listener } from "./socket.ts";
import { TelemetryExporter } from "./telemetry.ts";

/** What a daemon is started with. */
export interface DaemonOptions {
  readonly control: Address;
  /** Where other orchestrators send to; without it no link leads to another orchestrator. */
  readonly ipc?: TcpAddress | undefined;
  readonly telemetry?: TcpAddress | undefined;
  /** What the queues of all links together may hold. */
  readonly maxQueueBytes?: number | undefined;
  /** Log filter directives. */
  readonly log: string;
  /** The environment that instances inherit, less what is the orchestrator's own. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Takes each line of the log, without a newline. */
  readonly writeLog: (line: string) => void;
}

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

const USAGE = `Usage: veecle-orchestrator daemon [options]      (from source: bun run daemon [options])

Examples:
  veecle-orchestrator daemon
  veecle-orchestrator daemon --control-socket ./orchestrator.socket
  veecle-orchestrator daemon --control-socket 127.0.0.1:2660 --ipc-socket 127.0.0.1:2661

Options:
  --control-socket PATH|HOST:PORT  where the CLI connects
                                   (VEECLE_ORCHESTRATOR_SOCKET; default $XDG_RUNTIME_DIR/veecle-orchestrator.socket)
  --ipc-socket HOST:PORT           UDP: messages from and to other orchestrators
  --telemetry-socket HOST:PORT     TCP: where telemetry of instances goes (VEECLE_TELEMETRY_SOCKET)
  --max-queue SIZE                 what the queues of all links together may hold (256MiB)
  -h, --help                       print this page
  -V, --version                    print the version

Environment:
  VEECLE_ORCHESTRATOR_LOG          log filter directives: info (default), debug, router=trace,warn, off
`;

/** Variables that are the orchestrator's own: no instance inherits them. */
const OWN_VARIABLE =
  /^(VEECLE_ORCHESTRATOR_.*|VEECLE_TELEMETRY_SOCKET|VEECLE_IPC_SOCKET|VEECLE_RUNTIME_ID)$/;

/**
 * Reads the command line and the environment.
 * @returns the options, or a text to print instead of running
 * @throws `misuse`, naming the option
 */
export function parseDaemonOptions(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Omit<DaemonOptions, "writeLog"> | string {
  let values: Record<string, string | boolean | undefined>;
  try {
    ({ values } = parseArgs({
      args: [...argv],
      options: {
        "control-socket": { type: "string" },
        "ipc-socket": { type: "string" },
        "telemetry-socket": { type: "string" },
        "max-queue": { type: "string" },
        help: { type: "boolean", short: "h" },
        version: { type: "boolean", short: "V" },
      },
    }));
  } catch (error) {
    throw new OrchestratorError("misuse", `Cannot start: ${(error as Error).message}`, {
      hint: "--help prints all options",
    });
  }
  if (values["help"] === true) return USAGE;
  if (values["version"] === true) return `veecle-orchestrator ${VERSION}\n`;
  const text = (key: string, variable?: string): string | undefined => {
    const value = values[key] ?? (variable === undefined ? undefined : env[variable]);
    return typeof value === "string" && value !== "" ? value : undefined;
  };
  const control = text("control-socket", "VEECLE_ORCHESTRATOR_SOCKET");
  const ipc = text("ipc-socket");
  const telemetry = text("telemetry-socket", "VEECLE_TELEMETRY_SOCKET");
  const maxQueue = text("max-queue");
  const maxQueueBytes = maxQueue === undefined ? undefined : parseSize(maxQueue);
  if (maxQueue !== undefined && (maxQueueBytes === undefined || maxQueueBytes < MAX_FRAME_BYTES)) {
    throw new OrchestratorError(
      "misuse",
      `Cannot use ${JSON.stringify(maxQueue)} as --max-queue: it is not a size of at least 1MiB`,
    );
  }
  const log = env["VEECLE_ORCHESTRATOR_LOG"] ?? "";
  parseLogFilter(log);
  return {
    control: control === undefined ? defaultControlAddress(env) : parseAddress(control),
    ipc: ipc === undefined ? undefined : parseTcpAddress(ipc),
    telemetry: telemetry === undefined ? undefined : parseTcpAddress(telemetry),
    maxQueueBytes,
    log,
    env,
  };
}

/**
 * Starts a daemon in this process.
 * @throws the first thing that stands in the way, with everything else undone
 */
export async function startDaemon(options: DaemonOptions): Promise<Daemon> {
  const now = wallClock();
  const log = new Log(parseLogFilter(options.log), options.writeLog, now);
  const daemonLog = log.target("daemon");
  const onFault = (error: unknown): void => {
    const stack = error instanceof Error ? error.stack : undefined;
    daemonLog.error("run", `defect: ${messageChain(error).join(": ")}`, { stack });
  };
  const host = systemHost(onFault);
  const undo: (() => void)[] = [];
  try {
    const lock =
      options.control.kind === "unix"
        ? await claimSocket(options.control.path, options.env)
        : undefined;
    if (lock !== undefined) undo.push(() => lock.release());
    const folder = takeInstanceFolder(options);
    undo.push(() => folder.remove());
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
    const orchestrator = new Orchestrator({
      host,
      log,
      env: inheritedEnvironment(options.env),
      openSocket: (id, accept) => {
        const path = instanceSocketPath(folder.path, id, sockets++);
        const listener = listen({ kind: "unix", path }, accept, onFault);
        return { path, close: () => listener.stop() };
      },
      telemetry,
      histories: openHistories(join(folder.path, "output"), log, host, now),
      maxQueueBytes: options.maxQueueBytes,
      onFault,
    });
    const socket = await bindPeers(options.ipc, orchestrator, onFault);
    if (socket !== undefined) {
      undo.push(() => socket.close());
      daemonLog.info("run", "exchanging messages with other orchestrators", {
        socket: formatAddress(socket.address),
      });
    }
    const server = new ControlServer({
      orchestrator,
      log: log.target("control"),
      folder: folder.path,
      after: host.after,
      onFault,
    });
    const listener: Listener = listen(
      options.control,
      (connection) => server.accept(connection),
      onFault,
    );
    undo.push(() => listener.stop());
    log.target("control").info("run", "listening", { socket: formatAddress(listener.address) });
    let ending: Promise<void> | undefined;
    const end = async (): Promise<void> => {
      listener.stop();
      await orchestrator.shutDown();
      await telemetry?.close(FLUSH_MS);
      server.close();
      socket?.close();
      folder.remove();
      lock?.release();
      daemonLog.info("run", "stopped");
    };
    return {
      control: listener.address,
      ipc: socket?.address,
      stop: () => (ending ??= end()),
      kill: () => {
        orchestrator.kill();
        listener.stop();
        folder.remove();
        lock?.release();
      },
    };
  } catch (error) {
    for (const action of undo.reverse()) action();
    throw error;
  }
}

/**
 * Makes sure that nobody else serves a path: takes its lock, then asks who answers there.
 * @throws `already_exists`, `permission_denied` or `io`
 */
async function claimSocket(path: string, env: DaemonOptions["env"]): Promise<FileLock> {
  const folder = dirname(path);
  const { TMPDIR } = env;
  if (folder === dirname(formatAddress(defaultControlAddress({ TMPDIR })))) {
    makePrivateFolder(folder);
  }
  const lock = tryLock(`${path}.lock`);
  const refuse = (
    reason: string,
    hint: string = "stop the other one, or give this one its own --control-socket",
  ): OrchestratorError =>
    new OrchestratorError("already_exists", `Cannot listen on ${path}: ${reason}`, { hint });
  if (lock === undefined) throw refuse("another daemon serves it");
  try {
    if (isOtherFile(path)) {
      throw refuse("a file that is not a socket stands there", "choose another --control-socket");
    }
    if (await isServed(path)) throw refuse("another program serves it");
    return lock;
  } catch (error) {
    lock.release();
    throw error;
  }
}

/** Whether anybody listens on a path; a socket that nobody serves, or that is not there, refuses. */
async function isServed(path: string): Promise<boolean> {
  try {
    const connection = await connect(
      { kind: "unix", path },
      () => DISCARD,
      () => {},
    );
    connection.close();
    return true;
  } catch (error) {
    const code = systemCode((error as Error).cause);
    if (code === "ECONNREFUSED") return isListening(path);
    return code !== "ENOENT";
  }
}

/** A folder for the sockets and uploads of this daemon's instances. */
function takeInstanceFolder(options: DaemonOptions): OwnFolder {
  const control = formatAddress(options.control);
  const hash = new Bun.CryptoHasher("sha256").update(control).digest("hex").slice(0, 8);
  const bases = [options.env["XDG_RUNTIME_DIR"], options.env["TMPDIR"], tmpdir(), "/tmp"];
  const user = process.getuid?.() ?? 0;
  return takeFolder(
    bases.filter((base): base is string => base?.startsWith("/") === true),
    `veecle-orchestrator-${user}-${hash}`,
    (path) => socketPathFault(join(path, "1000000.socket.999")) === undefined,
  );
}

/** What instances print goes to files in a folder of its own. */
function openHistories(folder: string, log: Log, host: Host, now: () => number): Histories {
  makePrivateFolder(folder);
  const outputLog = log.target("output");
  return new Histories({
    folder,
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
    now,
    after: host.after,
  });
}

/** Named by the instance where that is short enough. */
function instanceSocketPath(folder: string, id: string, number: number): string {
  const path = join(folder, `${id}.socket`);
  return socketPathFault(`${path}.999`) === undefined ? path : join(folder, `${number}.socket`);
}

async function bindPeers(
  address: TcpAddress | undefined,
  orchestrator: Orchestrator,
  onFault: (error: unknown) => void,
): Promise<DatagramSocket | undefined> {
  if (address === undefined) return undefined;
  const host = isIP(address.host) === 0 ? await resolveHost(address) : address.host;
  const socket = await bindDatagram(
    { ...address, host },
    (datagram, from) => orchestrator.receiver.receive(datagram, from),
    onFault,
  );
  orchestrator.useSocket(socket);
  return socket;
}

async function resolveHost(address: TcpAddress): Promise<string> {
  try {
    return (await lookup(address.host)).address;
  } catch (error) {
    throw new OrchestratorError("io", `Cannot listen on ${formatAddress(address)} (UDP)`, {
      cause: error,
    });
  }
}

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
    const options = parseDaemonOptions(argv, process.env);
    if (typeof options === "string") {
      process.stdout.write(options);
      return 0;
    }
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

function reportFatal(error: unknown, log: LineWriter): number {
  log.flush();
  const [first, ...causes] = messageChain(error);
  const lines = [`error: ${first}`, ...causes.map((cause) => `caused by: ${cause}`)];
  if (error instanceof OrchestratorError && error.hint !== undefined) {
    lines.push(`hint: ${error.hint}`);
  }
  log.write(`${lines.join("\n")}\n`);
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
    let isStopping = false;
    const onSignal = (signal: string): void => {
      resolve();
      if (isStopping) {
        this.onSecond();
        log.write(`received ${signal} again, killed all instances\n`);
        log.flush();
        process.exit(signal === "SIGINT" ? 130 : 143);
      }
      isStopping = true;
    };
    process.on("SIGINT", onSignal);
    process.on("SIGTERM", onSignal);
    // A closed terminal ends the daemon as SIGTERM does, unless it was started with nohup.
    const status = readFileSync("/proc/self/status", "utf8");
    if (!isSignalIgnored(status, 1)) process.on("SIGHUP", onSignal);
  }
}

// Nothing that is still open may keep a daemon alive that has ended.
if (import.meta.main) process.exit(await main(process.argv.slice(2)));
