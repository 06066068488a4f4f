// How answers look: tables without borders, the chain of an error with its hint, exit codes.
//
// Pure. Texts that come from a daemon never reach a terminal with their control characters.

import {
  type ErrorCode,
  errorCode,
  messageChain,
  NO_ROOM_FOR_STATE,
  OrchestratorError,
} from "../errors.ts";
import { showJson } from "../json.ts";
import { escapeText } from "../log.ts";
import type { Info, LinkInfo, RuntimeInfo } from "../protocol/info.ts";
import { CLI, type CommandName, DAEMON } from "./surface.ts";
import { formatTable, paint } from "./table.ts";
import { exitWords, isNobody, peerWords } from "./words.ts";

const EXIT_CODES: Readonly<Record<ErrorCode, number>> = {
  bad_request: 1,
  not_found: 4,
  already_exists: 1,
  wrong_state: 1,
  limit_exceeded: 1,
  cannot_run: 1,
  not_configured: 1,
  upload_failed: 1,
  stop_failed: 1,
  permission_denied: 7,
  unreachable: 5,
  timed_out: 6,
  misuse: 2,
  state_unusable: 1,
  io: 1,
  internal: 1,
};

/** What was asked for has not come true, although nothing was refused. */
export class Unmet extends Error {
  readonly hint: string | undefined;

  constructor(message: string, hint?: string) {
    super(message);
    this.hint = hint;
  }
}

/** The exit code that tells a script what kind of failure it was. */
export function exitCode(error: unknown): number {
  return error instanceof Unmet ? 3 : EXIT_CODES[errorCode(error)];
}

/** An error as programs read it. Ends with a newline. */
export function errorDocument(error: unknown, asked: Asked | undefined): string {
  const [message, ...causes] = messagesOf(error);
  const code = error instanceof Unmet ? "unmet" : errorCode(error);
  const hint = hintFor(error, asked) ?? null;
  return `${showJson({ error: { code, message, causes, hint, exit: exitCode(error) } })}\n`;
}

/** What was asked for when an error came; it decides which next step helps. */
export interface Asked {
  readonly command: CommandName;
  readonly values: { get(name: string): string | undefined };
  /**
   * What is found on a Unix path where nobody answers and a start of another daemon would be refused:
   * the process that holds it, or a file or folder.
   */
  readonly found?: number | "no socket" | undefined;
}

/** An error as it is printed: what, why, and what to try next. Ends with a newline. */
export function formatError(error: unknown, asked: Asked | undefined, colour: boolean): string {
  const lines = messagesOf(error).map(
    (message, depth) =>
      `${depth === 0 ? paint(colour, "1;31", "error:") : paint(colour, "31", "caused by:")} ${escapeText(message)}`,
  );
  const hint = hintFor(error, asked);
  if (hint !== undefined) lines.push(`${paint(colour, "36", "hint:")} ${escapeText(hint)}`);
  return `${lines.join("\n")}\n`;
}

/** What is told of an error: the chain of its causes, or all of several that stand side by side. */
function messagesOf(error: unknown): string[] {
  const cause = error instanceof Error ? error.cause : undefined;
  if (!(cause instanceof AggregateError)) return messageChain(error);
  return [...messageChain(error).slice(0, 1), ...cause.errors.flatMap(messageChain)];
}

/** A refusal of the daemon, which knows instances by their ids, with the name that people know. */
export function withName(error: unknown, id: string, name: string): unknown {
  if (!(error instanceof OrchestratorError) || name === "") return error;
  const message = error.message.replace(`instance "${id}"`, () => `instance "${name}" (${id})`);
  const hint = error.hint === undefined ? {} : { hint: error.hint };
  return new OrchestratorError(error.code, message, { cause: error.cause, ...hint });
}

function hintFor(error: unknown, asked: Asked | undefined): string | undefined {
  if (error instanceof Unmet) return error.hint;
  const code = errorCode(error);
  const own = error instanceof OrchestratorError ? error.hint : undefined;
  const id = asked?.values.get("ID") ?? asked?.values.get("NAME") ?? "ID";
  switch (code) {
    case "unreachable": {
      const name = "name the daemon's with --socket, or in VEECLE_ORCHESTRATOR_SOCKET";
      if (asked?.found === "no socket") return `it is no socket: ${name}`;
      if (messageChain(error).includes("no such host")) return name;
      if (typeof asked?.found === "number") {
        const holder = asked.found;
        return `process ${holder} holds it: it is just starting or ending, or its socket was removed; then kill ${holder}, and start it anew`;
      }
      return `start one with "${daemonCommand(asked?.values.get("--socket"))}"`;
    }
    case "not_found":
      return own ?? `see what is there with "${CLI} ${listCommand(asked?.command)}"`;
    case "bad_request":
      if (!messageChain(error).join(" ").includes("unknown request")) return own;
      return `the daemon is older than this program; see "${CLI} version" and "${CLI} --version"`;
    case "cannot_run": {
      const reasons = messageChain(error).join(" ");
      const quoted = (words: string): string | undefined => {
        const text = new RegExp(`${words} ("(?:[^"\\\\]|\\\\.)*")`).exec(reasons)?.[1];
        return text === undefined ? undefined : (JSON.parse(text) as string);
      };
      const mending = mendingOf(reasons, quoted("Cannot run") ?? "PATH");
      if (mending !== undefined) return mending;
      const isUpload = reasons.includes("uploaded binary");
      const isManifest = asked?.command === "up";
      if (isManifest && !isUpload) return "mend its path in the manifest, and type it again";
      const name = shellWord(quoted("Cannot start instance") ?? id);
      const again = isUpload ? "add it again with --copy" : "add it with the right path";
      return `remove it with "${CLI} runtime remove ${name}", and ${isManifest ? "type it again" : again}`;
    }
    case "permission_denied":
      if (own !== undefined || !messageChain(error).join(" ").includes("token")) return own;
      return "name its token with --token-file FILE, or in VEECLE_ORCHESTRATOR_TOKEN_FILE";
    case "wrong_state":
      if (own !== undefined) return own;
      if (asked?.command === "runtime start" || asked?.command === "runtime remove") {
        return `type "${CLI} runtime stop ${shellWord(id)}"`;
      }
      return `see its state with "${CLI} runtime list"`;
    case "io":
      if (own !== undefined || !messageChain(error).join(" ").includes(NO_ROOM_FOR_STATE))
        return own;
      return `make room; "${CLI} doctor" says where`;
    case "not_configured":
      return own ?? `start the daemon with --ipc-socket HOST:PORT`;
    case "already_exists":
      if (own !== undefined) return own;
      return messageChain(error).join(" ").includes(": the name ")
        ? "choose another --name, or leave it out"
        : "leave --id out, and a new one is made";
    default:
      return own;
  }
}

/** What mends a program that is there and cannot be run, by the daemon's reasons. */
export function mendingOf(reasons: string, path: string): string | undefined {
  if (reasons.includes("the working folder")) {
    return `make that folder, or add it with another --cwd; see "${CLI} runtime add --help"`;
  }
  if (reasons.includes("is it executable?")) {
    return `make it executable with chmod +x ${shellWord(path)}`;
  }
  if (reasons.includes("not a program")) {
    return "build it for this machine; a script begins with #! and its interpreter";
  }
  const isCrowded = reasons.includes("no more processes");
  if (isCrowded || reasons.includes("too many open files")) {
    const limit = isCrowded ? "ulimit -u, or TasksMax=" : "ulimit -Hn, or LimitNOFILE=";
    return `stop another one, or raise the daemon's limit: ${limit} in its unit`;
  }
  if (reasons.includes("mounted noexec")) {
    return "mend its first line, or move it to a disk from which programs may be run";
  }
  if (reasons.includes('\\r" that it names')) {
    return `end its lines as Unix does: sed -i 's/\\r$//' ${shellWord(path)}`;
  }
  if (reasons.includes("open to write")) {
    return "start it again when that is done";
  }
  if (reasons.includes("the interpreter")) {
    return "install what its first line names, or build it for this machine";
  }
  return undefined;
}

/** The command that lists what an unknown name may have meant, in the words that the user speaks. */
function listCommand(command: CommandName | undefined): string {
  if (command === "link remove") return "link list";
  return command?.includes(" ") === true ? "runtime list" : "ps";
}

/** What starts a daemon where one was looked for; `socket` is what `--socket` said. */
export function daemonCommand(socket: string | undefined): string {
  return socket === undefined ? DAEMON : `${DAEMON} --control-socket ${shellWord(socket)}`;
}

/** `text` as a shell reads it as one word. */
export function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** The table of `runtime list`; on a screen, as far as it fits. */
export function formatRuntimes(info: Info, colour: boolean, columns?: number): string {
  const rows = Object.entries(info.runtimes).map(([id, runtime]) => [
    id,
    runtime.name ?? "",
    runtime.binary,
    formatState(runtime),
    runtime.privileged ? "yes" : "no",
    runtime.connected ? (runtime.dialect ?? "yes") : "no",
    String(runtime.messages?.received ?? 0),
  ]);
  const header = ["ID", "NAME", "BINARY", "STATE", "PRIVILEGED", "CONNECTED", "MESSAGES"];
  const [ids, names] = [0, 1];
  const spare = ["PRIVILEGED", "CONNECTED", "MESSAGES", "BINARY"].map((name) =>
    header.indexOf(name),
  );
  return formatTable(header, rows, { colour, columns, spare, whole: [ids], names: [names] });
}

/** The table of `link list`; on a screen, with names in the place of ids, and as far as it fits. */
export function formatLinks(
  info: Info,
  colour: boolean,
  screen?: { readonly columns: number | undefined },
): string {
  const shown = (id: string): string => (screen ? info.runtimes[id]?.name : undefined) ?? id;
  const rows = info.routes.map((link) => [
    link.from === null ? "(any)" : shown(link.from),
    link.type_name,
    shown(link.to),
    String(link.routed),
    String(link.delivered),
    formatDropped(link),
    String(link.queued),
    link.queue,
    link.on_full,
  ]);
  const header = [
    ...["FROM", "TYPE", "TO", "ROUTED", "DELIVERED", "DROPPED", "QUEUED"],
    ...["QUEUE", "ON-FULL"],
  ];
  const spare = ["ON-FULL", "QUEUE", "ROUTED"].map((name) => header.indexOf(name));
  return formatTable(header, rows, { colour, columns: screen?.columns, spare, names: [0, 1, 2] });
}

/**
 * What a table of links cannot say of other orchestrators: that they are nobody, and at a terminal,
 * what "delivered" means where nothing is known.
 */
export function peerNotes({ routes }: Info, nowMs: number, tellsAll: boolean): string[] {
  const peers = new Map(routes.flatMap(({ to, peer }) => (peer === undefined ? [] : [[to, peer]])));
  return [...peers]
    .filter(([, peer]) => isNobody(peer) || (tellsAll && peer.heard === null))
    .map(([to, peer]) => escapeText(`${to}: delivered means sent; ${peerWords(peer, nowMs)}`));
}

function formatState(runtime: RuntimeInfo): string {
  const { state, pid, exit, reason } = runtime;
  if (state === "failed") return `failed (${reason ?? "too many restarts"})`;
  if (state === "waiting") return `waiting (restart ${runtime.restarts + 1})`;
  if (state !== "stopped") return pid === null ? state : `${state} (pid ${pid})`;
  if (exit === null) return "stopped";
  return `exited (${exitWords(exit)})`;
}

function formatDropped(link: LinkInfo): string {
  const sum = droppedTotal(link);
  if (sum === 0) return "0";
  const reasons = Object.entries(link.dropped).filter(([, count]) => count > 0);
  return `${sum} (${reasons.map(([reason, count]) => `${reason} ${count}`).join(", ")})`;
}

/** How many messages of a link were dropped, for whatever reason. */
export function droppedTotal({ dropped }: LinkInfo): number {
  return Object.values(dropped).reduce((total, count) => total + count, 0);
}
