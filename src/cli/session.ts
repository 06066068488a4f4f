// One command at work: its words, its terminal, its connections, and the forms of its answers.

import { type Address, parseAddress } from "../address.ts";
import { ControlClient, defaultControlAddress, type Identity } from "../client.ts";
import { OrchestratorError } from "../errors.ts";
import type { Info, LinkInfo, RuntimeInfo } from "../protocol/info.ts";
import { isObject, showJson } from "../json.ts";
import { LEAST_ANSWER_MS, MAX_NAME_LENGTH } from "../limits.ts";
import { type InstanceId, parseInstanceId } from "../model.ts";
import { escapeText, PRINTABLE } from "../log.ts";
import type { Request } from "../protocol.ts";
import { parseDuration } from "../settings.ts";
import { VERSION } from "../version.ts";
import type { Deadline } from "./deadline.ts";
import type { Values } from "./parse.ts";
import { findInstance } from "./resolve.ts";
import { paint } from "./table.ts";
import type { Terminal } from "./terminal.ts";
import type { NameOf } from "./telling.ts";
import { isoTime } from "./words.ts";

/** An instance that a command is about. */
export interface Chosen {
  readonly id: InstanceId;
  readonly name: string;
  readonly runtime: RuntimeInfo;
}

export class Session {
  readonly values: Values;
  readonly terminal: Terminal;
  /** Whether standard output, and standard error, may have colours. */
  readonly colour: boolean;
  readonly reportColour: boolean;
  /** Whether a program reads the answer. */
  readonly isJson: boolean;
  readonly isQuiet: boolean;
  /** When the whole command gives up, if it does. */
  deadline: Deadline | undefined;
  #client: ControlClient | undefined;
  #isCompared = false;
  /** When the daemon was asked first for its state, on its clock; before that, and of an old one, 0. */
  beganMs = 0;
  readonly #others: Set<ControlClient> = new Set();

  constructor(values: Values, terminal: Terminal, isPlain: boolean) {
    this.values = values;
    this.terminal = terminal;
    this.isJson = values.has("--json");
    this.isQuiet = values.has("--quiet");
    this.colour = terminal.outputIsScreen && !isPlain && !this.isJson;
    this.reportColour = terminal.reportIsScreen && !isPlain && !this.isJson;
  }

  /** Where the daemon is looked for. @throws `misuse` */
  get address(): Address {
    return controlAddress(this.values.get("--socket"), this.terminal.env);
  }

  /** The connection for requests. */
  async client(): Promise<ControlClient> {
    this.#client ??= await this.#connect();
    return this.#client;
  }

  /** A connection of its own, for a stream or for a request that others are not to wait for. */
  async newClient(): Promise<ControlClient> {
    const client = await this.#connect();
    this.#others.add(client);
    return client;
  }

  /**
   * A new connection in place of one that has ended. A daemon ends a stream when its instance is
   * removed, and every connection when it dies: only asking again tells which.
   * @throws `unreachable` if nobody answers any more, with `reason` before the cause
   */
  async reconnect(reason: string): Promise<void> {
    this.#client?.close();
    this.#client = undefined;
    try {
      await this.request({ kind: "Version" });
    } catch (error) {
      if (!(error instanceof OrchestratorError)) throw error;
      const hint = error.hint === undefined ? {} : { hint: error.hint };
      const message = `${reason}: ${error.message}`;
      throw new OrchestratorError(error.code, message, { cause: error.cause, ...hint });
    }
  }

  /** How long an answer may take that is ready at once: not much longer than --timeout. */
  get answerMs(): number {
    return this.#within(this.terminal.deadlines.answerMs);
  }

  async request(
    request: Request,
    withinMs: number | undefined = this.deadline && this.answerMs,
  ): Promise<unknown> {
    return (await this.client()).request(request, withinMs);
  }

  /** A request about an instance, whose refusal names it as people do. */
  async requestOf(id: InstanceId, request: Request, name?: string): Promise<void> {
    try {
      await this.request(request);
    } catch (error) {
      if (this.#client === undefined) throw error; // to connect again would take as long again
      const { withName } = await import("./print.ts");
      const names = name === undefined ? await this.named().catch(() => undefined) : undefined;
      throw withName(error, id, name ?? names?.get(id) ?? "");
    }
  }

  async info(): Promise<Info> {
    const info = await this.request({ kind: "Info" }, this.answerMs);
    if (isInfo(info)) {
      this.beganMs ||= Number(info.time) || 0;
      this.#compareVersion(info.version);
      return { ...info, runtimes: tamed(info.runtimes) };
    }
    throw new OrchestratorError("io", "Cannot read the orchestrator's state: unknown form", {
      hint: "is the daemon of another version than this program?",
    });
  }

  /** A person is told once that the daemon is of another release; what both know works all the same. */
  #compareVersion(daemon: unknown): void {
    if (this.#isCompared || this.isJson || this.isQuiet) return;
    this.#isCompared = true;
    if (typeof daemon !== "string" || daemon === VERSION) return;
    const text = `the daemon is of version ${daemon}, this program of ${VERSION}`;
    this.terminal.report(`${paint(this.reportColour, "33", "note:")} ${escapeText(text)}\n`);
  }

  /** The instance that a value names; a whole id is taken as it is. */
  async instance(name: string): Promise<InstanceId> {
    const text = this.values.get(name) as string;
    return parseInstanceId(text) ?? findInstance(text, await this.named());
  }

  /** The name of every instance by its id. */
  async named(): Promise<ReadonlyMap<InstanceId, string>> {
    return namesOf(await this.info());
  }

  /**
   * The instances that NAME… names, each once.
   * @throws `not_found`, for the first that does not exist or could be several
   */
  chosen(info: Info): Chosen[] {
    const names = namesOf(info);
    const ids = this.values.all("NAME").map((text) => {
      const id = parseInstanceId(text) ?? findInstance(text, names);
      if (info.runtimes[id] !== undefined) return id;
      throw new OrchestratorError("not_found", `Cannot find instance "${id}": no such id`);
    });
    return [...new Set(ids)].map((id) => choose(info, id));
  }

  print(line: string): Promise<void> {
    return this.terminal.write(`${line}\n`);
  }

  /** The answer of a command: a document with `--json`, else lines for people. */
  answer(document: unknown, text: () => string): Promise<void> {
    return this.terminal.write(this.isJson ? `${showJson(document)}\n` : text());
  }

  close(): void {
    this.#client?.close();
    for (const client of this.#others) client.close();
  }

  async #connect(): Promise<ControlClient> {
    const { address, terminal } = this;
    // On a Unix path the kernel tells who we are.
    const identity = address.kind === "tcp" ? await this.#identity() : {};
    const connectMs = this.#within(terminal.deadlines.connectMs);
    const limited = this.deadline && { answerMs: this.answerMs };
    const deadlines = { ...terminal.deadlines, connectMs, ...limited };
    return ControlClient.connect(address, deadlines, identity);
  }

  #within(ms: number): number {
    // 0s only looks, which takes as long as it takes.
    const timeoutMs = parseDuration(this.values.get("--timeout") ?? "") || Number.POSITIVE_INFINITY;
    const leftMs = this.deadline?.leftMs ?? timeoutMs;
    return Math.min(ms, Math.max(LEAST_ANSWER_MS, Math.ceil(leftMs / 100) * 100));
  }

  /** What is shown to a daemon over TCP. @throws `permission_denied` or `io` for its files */
  async #identity(): Promise<Identity> {
    const { env, folder } = this.terminal;
    const { resolve } = await import("node:path");
    const path = (option: string, variable: string): string | undefined => {
      const text = this.values.get(option) ?? env[variable];
      return text === undefined || text === "" ? undefined : resolve(folder, text);
    };
    const tokenFile = path("--token-file", "VEECLE_ORCHESTRATOR_TOKEN_FILE");
    const ca = path("--tls-ca", "VEECLE_ORCHESTRATOR_TLS_CA");
    if (tokenFile === undefined && ca === undefined) return {};
    const { readPem, readSecret } = await import("../files/secret.ts");
    const token = tokenFile === undefined ? undefined : readSecret(tokenFile);
    if (ca === undefined) return { token };
    const cert = path("--tls-cert", "VEECLE_ORCHESTRATOR_TLS_CERT");
    const key = path("--tls-key", "VEECLE_ORCHESTRATOR_TLS_KEY");
    const own =
      cert === undefined || key === undefined ? {} : { cert: readPem(cert), key: readPem(key) };
    return { token, tls: { ca: readPem(ca), ...own } };
  }
}

/** Whether it is what a daemon tells of itself, as far as everything else relies on it. */
function isInfo(info: unknown): info is Info {
  if (!isObject(info) || !isObject(info["runtimes"]) || !Array.isArray(info["routes"]))
    return false;
  return Object.entries(info["runtimes"]).every(
    ([id, runtime]) => parseInstanceId(id) !== undefined && isObject(runtime),
  );
}

/** Names stand in every text, and nobody knows that the daemon who tells them keeps to our rules. */
function tamed(runtimes: Info["runtimes"]): Info["runtimes"] {
  const wild = Object.entries(runtimes).filter(
    ([, { name }]) => typeof name === "string" && !PRINTABLE.test(name), // daemons of before have none
  );
  if (wild.length === 0) return runtimes; // as nearly always
  const mended = wild.map(([id, runtime]) => [id, { ...runtime, name: escapeText(runtime.name) }]);
  return { ...runtimes, ...Object.fromEntries(mended) };
}

/** The name of every instance by its id. */
export function namesOf({ runtimes }: Info): Map<InstanceId, string> {
  return new Map(Object.entries(runtimes).map(([id, { name }]) => [id, name ?? ""]));
}

/** Names an instance by its id, or by the end of it if it is gone. */
export function nameOf(names: ReadonlyMap<InstanceId, string>): NameOf {
  return (id) => names.get(id) || id.slice(-12);
}

/** All instances in the order of their names. */
export function everyInstance(info: Info): Chosen[] {
  return sortedByName(Object.keys(info.runtimes).map((id) => choose(info, id)));
}

/** In the order in which people put names: numbers by their value, capitals beside small letters. */
export function sortedByName<T extends { readonly name: string }>(all: readonly T[]): T[] {
  // What stands before a number ends there, and comes before everything that begins like it.
  const padded = (digits: string): string => `\0${digits.padStart(MAX_NAME_LENGTH, "0")}`;
  return all
    .map((one) => ({ one, key: one.name.toLowerCase().replace(/[0-9]+/g, padded) }))
    .sort((a, b) => compareTexts(a.key, b.key) || compareTexts(a.one.name, b.one.name))
    .map(({ one }) => one);
}

function compareTexts(left: string, right: string): number {
  return left < right ? -1 : left > right ? 1 : 0;
}

function choose(info: Info, id: InstanceId): Chosen {
  const runtime = info.runtimes[id] as RuntimeInfo;
  return { id, name: runtime.name ?? id.slice(-12), runtime };
}

/** An instance as programs read it: what the daemon tells, with times as ISO 8601. */
export function instanceDocument({ id, runtime }: Chosen): Record<string, unknown> {
  const { started, due } = runtime;
  return { id, ...runtime, started: isoOrNull(started), due: isoOrNull(due) };
}

/** A link as programs read it. */
export function linkDocument<Link extends LinkInfo>({ peer, ...link }: Link): object {
  if (peer === undefined) return link;
  const times = Object.entries(peer).map(([key, time]) => [key, isoOrNull(time)]);
  return { ...link, peer: Object.fromEntries(times) };
}

function isoOrNull(time: number | null | undefined): string | null {
  return time === null || time === undefined ? null : isoTime(time);
}

/** `--socket`, else the environment's, else where a daemon listens by default. */
function controlAddress(
  option: string | undefined,
  env: Readonly<Record<string, string | undefined>>,
): Address {
  if (option !== undefined) return parseAddress(option);
  const text = env["VEECLE_ORCHESTRATOR_SOCKET"];
  if (text === undefined || text === "") return defaultControlAddress(env);
  try {
    return parseAddress(text);
  } catch (cause) {
    throw new OrchestratorError("misuse", "Cannot use VEECLE_ORCHESTRATOR_SOCKET", { cause });
  }
}
