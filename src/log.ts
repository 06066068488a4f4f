// Log records: what is written (filter directives), how often (rate limit) and how it looks.
//
//   2025-04-03T16:27:10.079509Z  INFO run: orchestrator::control: listening socket="/run/…"
//   time                         level spans target                message   fields
//
// One record is one line, whatever its texts contain. Where lines go is handed in; nothing is kept.

import { OrchestratorError } from "./errors.ts";
import { LOG_INTERVAL_MS, MAX_LOG_CAUSES, MAX_LOG_TEXT } from "./limits.ts";

export type Level = "error" | "warn" | "info" | "debug" | "trace";

/** Values of a record, printed as `key=value` in this order; an undefined one is left out. */
export type LogFields = Readonly<Record<string, string | number | boolean | null | undefined>>;

export interface LogFilter {
  /** `target` is the name of a room without the crate's prefix, such as `control`. */
  enabled(target: string, level: Level): boolean;
  /** Directives that `tracing` understands and that change nothing here; the daemon says so. */
  readonly idle: readonly string[];
}

/** The rooms that a directive may name without a level. */
export const LOG_TARGETS: readonly string[] = [
  "audit",
  "client",
  "control",
  "daemon",
  "datagram",
  "files",
  "guard",
  "host",
  "lifecycle",
  "memory",
  "notify",
  "orchestrator",
  "outbox",
  "output",
  "peer",
  "port",
  "protocol",
  "recovery",
  "router",
  "runtime",
  "socket",
  "store",
  "supervisor",
  "telemetry",
];

const LEVELS: readonly Level[] = ["error", "warn", "info", "debug", "trace"];
const CRATES: readonly string[] = ["orchestrator", "veecle_orchestrator"];
/** `target[span{field=value}]=level`, as in `tracing_subscriber`'s EnvFilter: each part may be missing. */
const DIRECTIVE = /^([\w:-]+)?(\[[^\]]*\])?(?:\s*=\s*(\w*))?$/;
/** Commas within a span's brackets separate nothing. */
const DIRECTIVES = /(?:\[[^\]]*\]|[^,])+/g;

/**
 * Reads filter directives of the kind that `tracing`'s `EnvFilter` takes: `level`, `target=level` or
 * `target` (all of its levels), separated by commas. A level is a word in any case, 0 to 5, or `off`.
 * The most specific directive decides, among equal ones the last. Without any directive the level is
 * `info`; with directives but no bare level, targets that none of them names log errors only.
 * Targets of other programs (`tokio=warn`) and spans (`[connection]=trace`) match nothing.
 * @throws `misuse`, naming the directive
 */
export function parseLogFilter(text: string): LogFilter {
  const ranks = new Map<string, number>(); // "": everywhere, "*": the whole crate, else a room
  const idle: string[] = [];
  let named = false;
  for (const part of text.match(DIRECTIVES) ?? []) {
    const directive = part.trim();
    if (directive === "") continue;
    const parsed = parseDirective(directive);
    if (parsed === undefined) {
      idle.push(directive);
      continue;
    }
    if (parsed.target !== undefined) ranks.set(parsed.target, parsed.rank);
    named = true;
  }
  const other = ranks.get("*") ?? ranks.get("") ?? (named ? 1 : 3);
  return {
    enabled: (target, level) => LEVELS.indexOf(level) < (ranks.get(target) ?? other),
    idle,
  };
}

/**
 * A rank is the number of levels that are written: 0 is `off`, 5 is `trace`. Undefined for a
 * directive that cannot have been meant for anything here.
 */
function parseDirective(
  directive: string,
): { target: string | undefined; rank: number } | undefined {
  const fault = (reason: string): OrchestratorError =>
    new OrchestratorError(
      "misuse",
      `Cannot use log directive ${JSON.stringify(directive)}: ${reason}`,
      {
        hint: 'write a level, or target=level, separated by commas: "info" or "router=trace,warn"',
      },
    );
  const bare = parseRank(directive);
  if (bare !== undefined) return { target: "", rank: bare };
  const [matched, name, span, level = ""] = DIRECTIVE.exec(directive) ?? [];
  if (matched === undefined || (name ?? span) === undefined) {
    throw fault("it is neither a level nor a target");
  }
  const rank = level === "" ? LEVELS.length : parseRank(level);
  if (rank === undefined) throw fault(`${JSON.stringify(level)} is not a level`);
  if (name === undefined || span !== undefined) return undefined;
  const target = ownTarget(name);
  return target === undefined && level === "" ? undefined : { target, rank };
}

function parseRank(text: string): number | undefined {
  if (/^[0-5]$/.test(text)) return Number(text);
  const word = text.toLowerCase();
  if (word === "off") return 0;
  const index = (LEVELS as readonly string[]).indexOf(word);
  return index < 0 ? undefined : index + 1;
}

/** The room that a target names, `*` for all of them, undefined for anything foreign. */
function ownTarget(name: string): string | undefined {
  if (CRATES.includes(name)) return "*";
  const [crate, room, ...more] = name.split("::");
  const target = room !== undefined && CRATES.includes(crate as string) ? room : name;
  return more.length === 0 && LOG_TARGETS.includes(target) ? target : undefined;
}

/** The log of a process; each room writes to its own target. */
export class Log {
  readonly #filter: LogFilter;
  readonly #write: (line: string) => void;
  readonly #now: () => number;

  /**
   * `write` takes one line without its newline. `now` is in milliseconds since the epoch; its
   * fraction is printed down to the microsecond.
   */
  constructor(filter: LogFilter, write: (line: string) => void, now: () => number) {
    this.#filter = filter;
    this.#write = write;
    this.#now = now;
  }

  /** The log of one room; its name is printed as `orchestrator::<name>`. */
  target(name: string): TargetLog {
    const write = (level: Level, spans: string, message: string, fields?: LogFields): void =>
      this.#write(formatRecord(this.#now(), level, spans, name, message, fields));
    return new TargetLog(
      LEVELS.filter((level) => this.#filter.enabled(name, level)),
      write,
    );
  }
}

/** The log of one room. `spans` is what is going on, outermost first: `run:connection`, or "". */
export class TargetLog {
  readonly #levels: readonly Level[];
  readonly #write: (level: Level, spans: string, message: string, fields?: LogFields) => void;

  /** Made by `Log.target()`. */
  constructor(
    levels: readonly Level[],
    write: (level: Level, spans: string, message: string, fields?: LogFields) => void,
  ) {
    this.#levels = levels;
    this.#write = write;
  }

  /** Whether a record of this level is written: ask before computing costly fields. */
  enabled(level: Level): boolean {
    return this.#levels.includes(level);
  }

  error(spans: string, message: string, fields?: LogFields): void {
    if (this.enabled("error")) this.#write("error", spans, message, fields);
  }

  warn(spans: string, message: string, fields?: LogFields): void {
    if (this.enabled("warn")) this.#write("warn", spans, message, fields);
  }

  info(spans: string, message: string, fields?: LogFields): void {
    if (this.enabled("info")) this.#write("info", spans, message, fields);
  }

  debug(spans: string, message: string, fields?: LogFields): void {
    if (this.enabled("debug")) this.#write("debug", spans, message, fields);
  }

  trace(spans: string, message: string, fields?: LogFields): void {
    if (this.enabled("trace")) this.#write("trace", spans, message, fields);
  }
}

/**
 * Lets one message per interval and cause through and counts the others. Keeps a bounded number of
 * causes; while all of them are in use, further causes share one. A cause that falls silent never
 * has its last count printed: exact figures are in the counters.
 */
export class RateLimited {
  readonly #intervalMs: number;
  readonly #maxCauses: number;
  readonly #causes = new Map<string, { since: number; omitted: number }>();
  readonly #shared = { since: Number.NEGATIVE_INFINITY, omitted: 0 };

  constructor(intervalMs: number = LOG_INTERVAL_MS, maxCauses: number = MAX_LOG_CAUSES) {
    this.#intervalMs = intervalMs;
    this.#maxCauses = maxCauses;
  }

  /**
   * Returns the message to log now, with the number of those left out since the last one, or
   * undefined if this one is left out. `nowMs` is any clock that does not go back.
   */
  admit(cause: string, message: string, nowMs: number): string | undefined {
    const state = this.#causes.get(cause) ?? this.#enter(cause, nowMs);
    if (nowMs - state.since < this.#intervalMs) {
      state.omitted += 1;
      return undefined;
    }
    const { omitted } = state;
    state.since = nowMs;
    state.omitted = 0;
    return omitted === 0 ? message : `${message} (and ${omitted} more like it)`;
  }

  #enter(cause: string, nowMs: number): { since: number; omitted: number } {
    if (this.#causes.size >= this.#maxCauses) {
      for (const [key, { since }] of this.#causes) {
        if (nowMs - since >= this.#intervalMs) this.#causes.delete(key);
      }
    }
    if (this.#causes.size >= this.#maxCauses) return this.#shared;
    const state = { since: Number.NEGATIVE_INFINITY, omitted: 0 };
    this.#causes.set(cause, state);
    return state;
  }
}

const UNSAFE = /[\p{Cc}\p{Zl}\p{Zp}\p{Cs}\p{Bidi_Control}]/gu;
/** Most texts are of these alone, which is seen sooner than what a class of Unicode is not in. */
export const PRINTABLE: RegExp = /^[ -~]*$/;
const NAMED_ESCAPES: Readonly<Record<string, string>> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

/**
 * Writes as an escape whatever could end a line, drive a terminal or turn the direction of writing:
 * control characters, line separators, lone surrogates and marks of direction.
 */
export function escapeText(text: string): string {
  if (PRINTABLE.test(text)) return text;
  return text.replaceAll(
    UNSAFE,
    (character) =>
      NAMED_ESCAPES[character] ?? `\\u{${(character.codePointAt(0) as number).toString(16)}}`,
  );
}

function formatRecord(
  timeMs: number,
  level: Level,
  spans: string,
  target: string,
  message: string,
  fields: LogFields | undefined,
): string {
  const where = spans === "" ? "" : `${escapeText(spans)}: `;
  let line =
    `${formatTime(timeMs)} ${level.toUpperCase().padStart(5)} ` +
    `${where}orchestrator::${target}: ${escapeText(shorten(message, MAX_LOG_TEXT))}`;
  for (const key in fields) {
    const value = fields[key];
    if (value !== undefined) line += ` ${key}=${formatValue(value)}`;
  }
  return line;
}

function formatTime(timeMs: number): string {
  const micros = Math.floor(timeMs * 1000);
  const millis = Math.floor(micros / 1000);
  const rest = String(micros - millis * 1000).padStart(3, "0");
  return `${new Date(millis).toISOString().slice(0, -1)}${rest}Z`;
}

/** Words, numbers, ids and `Name(arguments)` stand as they are; any other text is quoted. */
function formatValue(value: string | number | boolean | null): string {
  if (typeof value !== "string") return String(value);
  const text = shorten(value, MAX_LOG_TEXT);
  return /^[A-Za-z0-9._:()+,@-]+$/.test(text) ? text : escapeText(JSON.stringify(text));
}

/** At most so many units of a text, with an ellipsis in place of the rest; no character is halved. */
export function shorten(text: string, length: number): string {
  if (text.length <= length) return text;
  const isHalf = (text.codePointAt(length - 1) as number) > 0xffff;
  return `${text.slice(0, isHalf ? length - 1 : length)}…`;
}

/** Records of which each cause is logged at most once a second; the others are counted. */
export class QuietLog {
  readonly #log: TargetLog;
  readonly #limited: RateLimited = new RateLimited();
  readonly #now: () => number;

  constructor(log: TargetLog, now: () => number) {
    this.#log = log;
    this.#now = now;
  }

  warn(cause: string, spans: string, message: string, fields?: LogFields): void {
    const admitted = this.#limited.admit(cause, message, this.#now());
    if (admitted !== undefined) this.#log.warn(spans, admitted, fields);
  }

  /** Returns whether this one was not too much. */
  info(cause: string, spans: string, message: string, fields?: LogFields): boolean {
    const admitted = this.#limited.admit(cause, message, this.#now());
    if (admitted !== undefined) this.#log.info(spans, admitted, fields);
    return admitted !== undefined;
  }
}
