// The daemon's command line and environment: untrusted words → options, or a page to print.

import { resolve } from "node:path";
import { parseArgs } from "node:util";

import { type Address, parseAddress, parseTcpAddress, type TcpAddress } from "../address.ts";
import { versionLine } from "../version.ts";
import { defaultControlAddress } from "../client.ts";
import { OrchestratorError } from "../errors.ts";
import { MAX_FRAME_BYTES, MAX_OUTPUT_FILES, MAX_PEERS, MIN_OUTPUT_FILE_BYTES } from "../limits.ts";
import { parseLogFilter } from "../log.ts";
import { formatSize, parseSize } from "../model.ts";

/** What a daemon is started with. */
export interface DaemonOptions {
  readonly control: Address;
  /** Where other orchestrators send to; without it no link leads to another orchestrator. */
  readonly ipc?: TcpAddress | undefined;
  readonly telemetry?: TcpAddress | undefined;
  /** What the queues of all links together may hold. */
  readonly maxQueueBytes?: number | undefined;
  /** Other orchestrators that are listened to, as IP or IP:PORT or a name; undefined: all. */
  readonly peers?: readonly string[] | undefined;
  /** What clients from other machines have to show. */
  readonly tokenFile?: string | undefined;
  /** Files in PEM: what a TCP control socket shows to clients, and who must have signed theirs. */
  readonly tlsCert?: string | undefined;
  readonly tlsKey?: string | undefined;
  readonly tlsClientCa?: string | undefined;
  /** Whether clients from other machines need no token. */
  readonly insecureTcp?: boolean | undefined;
  /** Where the state is kept; undefined: in the default place, or nowhere if that cannot be. */
  readonly stateDir?: string | undefined;
  /** Remember nothing. */
  readonly ephemeral?: boolean | undefined;
  /** How large a file of captured output grows, and how many there are of one instance. */
  readonly outputFileBytes?: number | undefined;
  readonly outputFiles?: number | undefined;
  /** Log filter directives. */
  readonly log: string;
  /** The environment that instances inherit, less what is the orchestrator's own. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Takes each line of the log, without a newline. */
  readonly writeLog: (line: string) => void;
}

/** The page of `daemon --help`. */
export const DAEMON_USAGE = `Usage: veecle-orchestrator daemon [options]      (from source: bun run daemon [options])

Examples:
  veecle-orchestrator daemon
  veecle-orchestrator daemon --control-socket ./orchestrator.socket
  veecle-orchestrator daemon --control-socket 127.0.0.1:2660 --ipc-socket 127.0.0.1:2661

Options:
  --control-socket PATH|HOST:PORT  where the CLI connects
                                   (VEECLE_ORCHESTRATOR_SOCKET; default $XDG_RUNTIME_DIR/veecle-orchestrator.socket)
  --ipc-socket HOST:PORT           UDP: messages from and to other orchestrators
  --telemetry-socket HOST:PORT     TCP: where telemetry of instances goes (VEECLE_TELEMETRY_SOCKET)
  --token-file FILE                clients on other machines have to show this token; see "token new"
                                   (VEECLE_ORCHESTRATOR_TOKEN_FILE)
  --tls-cert FILE, --tls-key FILE  encrypt a TCP control socket, with this certificate
  --tls-client-ca FILE             take only clients whose certificate was signed by these
  --insecure-tcp                   let everybody who reaches a TCP control socket control the daemon
  --peer HOST[:PORT]               take messages over UDP from this orchestrator only; may be repeated
  --max-queue SIZE                 what the queues of all links together may hold (256MiB)
  --state-dir DIR                  what is remembered: instances, links, events, output
                                   (default $XDG_STATE_HOME/veecle-orchestrator, one folder for each control socket)
  --ephemeral                      remember nothing after the end
  --output-size SIZE               captured output of an instance, in each of its files (10MiB)
  --output-files N                 how many such files are kept (3)
  -h, --help                       print this page
  -V, --version                    print the version

Environment:
  VEECLE_ORCHESTRATOR_LOG          log filter directives: info (default), debug, router=trace,warn, off
`;

/**
 * Reads the command line and the environment.
 * @returns the options, or a text to print instead of running
 * @throws `misuse`, naming the option
 */
export function parseDaemonOptions(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Omit<DaemonOptions, "writeLog"> | string {
  let values: Record<string, string | boolean | readonly (string | boolean)[] | undefined>;
  try {
    ({ values } = parseArgs({
      args: [...argv],
      options: {
        "control-socket": { type: "string" },
        "ipc-socket": { type: "string" },
        "telemetry-socket": { type: "string" },
        "max-queue": { type: "string" },
        "token-file": { type: "string" },
        "tls-cert": { type: "string" },
        "tls-key": { type: "string" },
        "tls-client-ca": { type: "string" },
        "insecure-tcp": { type: "boolean" },
        peer: { type: "string", multiple: true },
        "state-dir": { type: "string" },
        ephemeral: { type: "boolean" },
        "output-size": { type: "string" },
        "output-files": { type: "string" },
        help: { type: "boolean", short: "h" },
        version: { type: "boolean", short: "V" },
      },
    }));
  } catch (error) {
    throw new OrchestratorError("misuse", `Cannot start: ${(error as Error).message}`, {
      hint: "--help prints all options",
    });
  }
  if (values["help"] === true) return DAEMON_USAGE;
  if (values["version"] === true) return versionLine();
  const text = (key: string, variable?: string): string | undefined => {
    const value = values[key] ?? (variable === undefined ? undefined : env[variable]);
    return typeof value === "string" && value !== "" ? value : undefined;
  };
  const control = text("control-socket", "VEECLE_ORCHESTRATOR_SOCKET");
  const ipc = text("ipc-socket");
  const telemetry = text("telemetry-socket", "VEECLE_TELEMETRY_SOCKET");
  const size = (key: string, minBytes: number): number | undefined => {
    const given = text(key);
    const bytes = given === undefined ? undefined : parseSize(given);
    if (given === undefined || (bytes !== undefined && bytes >= minBytes)) return bytes;
    const least = formatSize(minBytes);
    throw misuse(key, given, `it is not a size of at least ${least}`);
  };
  const files = text("output-files");
  if (files !== undefined && !(/^[1-9][0-9]?$/.test(files) && Number(files) <= MAX_OUTPUT_FILES)) {
    throw misuse("output-files", files, `it is not a number from 1 to ${MAX_OUTPUT_FILES}`);
  }
  const stateDir = text("state-dir");
  const ephemeral = values["ephemeral"] === true;
  if (ephemeral && stateDir !== undefined) {
    throw new OrchestratorError("misuse", "Cannot use --ephemeral together with --state-dir");
  }
  const peers = peersOf(values["peer"]);
  if (peers !== undefined && ipc === undefined) {
    throw new OrchestratorError("misuse", "Cannot use --peer without --ipc-socket");
  }
  const telemetryTo = telemetry === undefined ? undefined : parseTcpAddress(telemetry);
  if (telemetry !== undefined && telemetryTo?.port === 0) {
    throw misuse("telemetry-socket", telemetry, "nobody listens on port 0");
  }
  const log = env["VEECLE_ORCHESTRATOR_LOG"] ?? "";
  parseLogFilter(log);
  return {
    control: control === undefined ? defaultControlAddress(env) : parseAddress(control),
    ipc: ipc === undefined ? undefined : parseTcpAddress(ipc),
    telemetry: telemetryTo,
    peers,
    tokenFile: resolveOr(text("token-file", "VEECLE_ORCHESTRATOR_TOKEN_FILE")),
    ...tlsFiles(text),
    insecureTcp: values["insecure-tcp"] === true,
    maxQueueBytes: size("max-queue", MAX_FRAME_BYTES),
    stateDir: resolveOr(stateDir),
    ephemeral,
    outputFileBytes: size("output-size", MIN_OUTPUT_FILE_BYTES),
    outputFiles: files === undefined ? undefined : Number(files),
    log,
    env,
  };
}

/** @throws `misuse` for a part without the others */
function tlsFiles(
  text: (key: string) => string | undefined,
): Pick<DaemonOptions, "tlsCert" | "tlsKey" | "tlsClientCa"> {
  const [tlsCert, tlsKey, tlsClientCa] = ["tls-cert", "tls-key", "tls-client-ca"].map((key) =>
    resolveOr(text(key)),
  );
  const isWhole = (tlsCert === undefined) === (tlsKey === undefined);
  if (!isWhole || (tlsClientCa !== undefined && tlsCert === undefined)) {
    throw new OrchestratorError(
      "misuse",
      "Cannot use TLS: --tls-cert and --tls-key are needed together",
    );
  }
  return { tlsCert, tlsKey, tlsClientCa };
}

function resolveOr(path: string | undefined): string | undefined {
  return path === undefined ? undefined : resolve(path);
}

/** @throws `misuse` for one that is neither a host nor HOST:PORT */
function peersOf(given: unknown): readonly string[] | undefined {
  if (!Array.isArray(given)) return undefined;
  if (given.length > MAX_PEERS) {
    throw misuse("peer", String(given[MAX_PEERS]), `there are more than ${MAX_PEERS}`);
  }
  for (const peer of given.map(String)) {
    parsePeer(peer);
    if (/:0+$/.test(peer)) throw misuse("peer", peer, "nobody sends from port 0");
  }
  return given.map(String);
}

/**
 * Reads `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`; port 0 stands for any.
 * @throws `misuse`
 */
export function parsePeer(text: string): TcpAddress {
  return parseTcpAddress(text, 0);
}

function misuse(option: string, value: string, reason: string): OrchestratorError {
  return new OrchestratorError(
    "misuse",
    `Cannot use ${JSON.stringify(value)} as --${option}: ${reason}`,
  );
}
