// Control requests and responses: untrusted JSON text ↔ typed values, in both dialects.
//
// Pure. `unknown` ends here: what leaves `decodeRequest` is valid. How bytes are framed (lines or
// size-prefixed) is the business of `lines.ts` and `frame.ts`; who executes is `control.ts`.
// An enum value is externally tagged: `"Info"`, or an object with one key: `{"Stop":"<uuid>"}`.

import { errorCode, type ErrorCode, messageChain, OrchestratorError } from "./errors.ts";
import { isObject, parseJson } from "./json.ts";
import { MAX_UPLOAD_BYTES } from "./limits.ts";
import {
  DEFAULT_LINK_SETTINGS,
  formatQueueBound,
  formatTarget,
  type InstanceId,
  type LinkKey,
  type LinkSettings,
  ON_FULL,
  type OnFull,
  parseInstanceId,
  parsePriority,
  parseQueueBound,
  parseTarget,
  type Priority,
  typeNameFault,
} from "./model.ts";

const SUBJECT = "Cannot parse request";

/** The version that `Version` answers: the one of the protocol that existing clients know. */
export const PROTOCOL_VERSION = "0.1.0";

/** A request of the control socket. Field names follow the domain, not the wire. */
export type Request =
  | { readonly kind: "Version" }
  | { readonly kind: "Info" }
  | { readonly kind: "Clear" }
  | {
      readonly kind: "Add";
      readonly id: InstanceId;
      readonly path: string;
      readonly privileged: boolean;
    }
  | {
      readonly kind: "AddWithBinary";
      readonly id: InstanceId;
      /** Bytes that follow, 0 to `MAX_UPLOAD_BYTES`. */
      readonly length: number;
      /** SHA-256 in lower-case hexadecimal. */
      readonly hash: string;
      readonly privileged: boolean;
    }
  | { readonly kind: "Remove"; readonly id: InstanceId }
  | { readonly kind: "Start"; readonly id: InstanceId; readonly priority: Priority | undefined }
  | { readonly kind: "Stop"; readonly id: InstanceId }
  | { readonly kind: "Stdout"; readonly id: InstanceId }
  | {
      readonly kind: "Link";
      readonly link: LinkKey;
      /** What is not given stays as it is, or becomes the default. */
      readonly settings?: Partial<LinkSettings>;
    }
  | { readonly kind: "Unlink"; readonly link: LinkKey };

/** The accounts of one link, in messages: routed = delivered + dropped (all reasons) + queued. */
export interface LinkInfo {
  readonly type_name: string;
  /** The only instance whose messages it takes; null: any. */
  readonly from: string | null;
  readonly to: string;
  /** The bound of its queue: a size (`4MiB`) or a number of messages (`100`). */
  readonly queue: string;
  readonly on_full: OnFull;
  readonly routed: number;
  readonly delivered: number;
  readonly queued: number;
  readonly dropped: Readonly<Record<string, number>>;
}

/** One instance in the answer to `Info`; existing clients read the first three keys. */
export interface RuntimeInfo {
  readonly running: boolean;
  readonly binary: string;
  readonly privileged: boolean;
  readonly state: "stopped" | "running" | "stopping";
  readonly pid: number | null;
  readonly connected: boolean;
  readonly dialect: "veecle" | "native" | null;
  /** Not read from, because a link with the policy `block` has no room. */
  readonly held: boolean;
  /** How the last process ended; null: it never ran, or runs for the first time. */
  readonly exit: { readonly code: number } | { readonly signal: string } | null;
  /** Messages received from it: routed to a link + unlinked + refused. */
  readonly messages: {
    readonly received: number;
    readonly unlinked: number;
    readonly refused: number;
  };
}

/** The answer to `Info`; existing clients read `runtimes` and `links`. */
export interface Info {
  readonly runtimes: Readonly<Record<InstanceId, RuntimeInfo>>;
  readonly links: Readonly<Record<string, readonly string[]>>;
  /** Every link with its source and its accounts. */
  readonly routes: readonly LinkInfo[];
  readonly telemetry: {
    readonly sent: number;
    readonly dropped: number;
    readonly queued: number;
  } | null;
  readonly pid: number;
}

/** What a client reads back: a value, or the chain of messages, with a code in the native dialect. */
export type Response =
  { readonly Ok: unknown } | { readonly Err: readonly string[]; readonly code?: ErrorCode };

type Fields = Readonly<Record<string, unknown>>;

/**
 * Reads one request from the text of a line or frame.
 * @throws `bad_request`, naming the field and what is wrong; `limit_exceeded` for an upload too large
 */
export function decodeRequest(text: string): Request {
  const value = parseJson(text, SUBJECT);
  if (typeof value === "string") return decodeVariant(value, undefined);
  if (!isObject(value)) throw bad("it is neither a string nor an object");
  const keys = Object.keys(value);
  const [name] = keys;
  if (name === undefined || keys.length !== 1) {
    throw bad(`an object with exactly one key is needed, this one has ${keys.length}`);
  }
  return decodeVariant(name, value[name]);
}

/** The JSON text of a request, as every daemon understands it. */
export function encodeRequest(request: Request): string {
  return JSON.stringify(requestValue(request));
}

/** The JSON text of a success. */
export function encodeOk(value: unknown): string {
  return `{"Ok":${JSON.stringify(value ?? null)}}`;
}

/** The JSON text of a failure; existing clients refuse a second key, so they get no code. */
export function encodeError(error: unknown, withCode: boolean): string {
  const Err = messageChain(error).map((message) => message.toWellFormed());
  return JSON.stringify(withCode ? { Err, code: errorCode(error) } : { Err });
}

/**
 * Reads one response.
 * @throws `bad_request` if it is not one
 */
export function decodeResponse(text: string): Response {
  const subject = "Cannot parse response";
  const value = parseJson(text, subject);
  if (isObject(value)) {
    if (Object.hasOwn(value, "Ok")) return { Ok: value["Ok"] };
    const chain = value["Err"];
    if (Array.isArray(chain) && chain.every((message) => typeof message === "string")) {
      return value as unknown as Response;
    }
  }
  throw bad("it is neither Ok nor Err", subject);
}

/** A request as one short text for the log: `Start(0195fc7b-…)`. */
export function describeRequest(request: Request): string {
  switch (request.kind) {
    case "Version":
    case "Info":
    case "Clear":
      return request.kind;
    case "Add":
      return `Add(${request.id}, ${JSON.stringify(request.path)}${request.privileged ? ", privileged" : ""})`;
    case "AddWithBinary":
      return `AddWithBinary(${request.id}, ${request.length} bytes${request.privileged ? ", privileged" : ""})`;
    case "Start":
      return `Start(${request.id}${request.priority === undefined ? "" : `, ${request.priority}`})`;
    case "Remove":
    case "Stop":
    case "Stdout":
      return `${request.kind}(${request.id})`;
    case "Link":
    case "Unlink":
      return `${request.kind}(${JSON.stringify(linkFields(request.link))})`;
  }
}

function decodeVariant(name: string, body: unknown): Request {
  switch (name) {
    case "Version":
    case "Info":
    case "Clear":
      if (body !== undefined && body !== null) throw bad(`${name} takes no fields`);
      return { kind: name };
    case "Add": {
      const fields = object(body, name);
      const path = string(fields, name, "path");
      if (path === "") throw bad(`${name}.path is empty`);
      if (path.includes("\0")) throw bad(`${name}.path contains a NUL character`);
      if (!path.isWellFormed()) throw bad(`${name}.path contains an unpaired surrogate`);
      return {
        kind: name,
        id: id(fields["id"], `${name}.id`),
        path,
        privileged: flag(fields, name),
      };
    }
    case "AddWithBinary": {
      const fields = object(body, name);
      const length = fields["length"];
      if (typeof length !== "number" || !Number.isSafeInteger(length) || length < 0) {
        throw bad(`${name}.length is not a whole number of bytes`);
      }
      const upload = {
        kind: name,
        id: id(fields["id"], `${name}.id`),
        length,
        hash: hash(fields["hash"], name),
        privileged: flag(fields, name),
      } as const;
      if (length > MAX_UPLOAD_BYTES) {
        throw new OrchestratorError(
          "limit_exceeded",
          `Cannot accept an upload of ${length} bytes: the limit is ${MAX_UPLOAD_BYTES}; ` +
            `copy the file to the machine and add its path instead`,
        );
      }
      return upload;
    }
    case "Remove":
    case "Stop":
    case "Stdout":
      return { kind: name, id: id(body, name) };
    case "Start": {
      if (typeof body === "string") return { kind: name, id: id(body, name), priority: undefined };
      const fields = object(body, name);
      return {
        kind: name,
        id: id(fields["id"], `${name}.id`),
        priority: priority(fields["priority"], `${name}.priority`),
      };
    }
    case "Link":
    case "Unlink": {
      const fields = object(body, name);
      const typeName = string(fields, name, "type_name");
      const fault = typeNameFault(typeName);
      if (fault !== undefined) throw bad(`${name}.type_name cannot be used: ${fault}`);
      const from = fields["from"];
      const to = parseTarget(string(fields, name, "to"));
      if (to === undefined) {
        throw bad(`${name}.to is neither an instance id nor IP:PORT: ${quote(fields["to"])}`);
      }
      const link = {
        kind: name,
        link: {
          from: from === undefined || from === null ? undefined : id(from, `${name}.from`),
          typeName,
          to,
        },
      };
      if (link.kind === "Unlink") return link;
      const settings = linkSettings(fields);
      return Object.keys(settings).length === 0 ? link : { ...link, settings };
    }
    default:
      throw bad(`unknown request ${quote(name)}`);
  }
}

function requestValue(request: Request): unknown {
  switch (request.kind) {
    case "Version":
    case "Info":
    case "Clear":
      return request.kind;
    case "Remove":
    case "Stop":
    case "Stdout":
      return { [request.kind]: request.id };
    case "Start":
      return { Start: { id: request.id, priority: request.priority ?? null } };
    case "Add":
      return { Add: { id: request.id, path: request.path, privileged: request.privileged } };
    case "AddWithBinary":
      return {
        AddWithBinary: {
          id: request.id,
          length: request.length,
          hash: [...Buffer.from(request.hash, "hex")],
          privileged: request.privileged,
        },
      };
    case "Link":
      return { Link: { ...linkFields(request.link), ...settingFields(request.settings ?? {}) } };
    case "Unlink":
      return { Unlink: linkFields(request.link) };
  }
}

/** The settings of a link that a request gives. */
function linkSettings(fields: Fields): Partial<LinkSettings> {
  const { queue, on_full: onFull } = fields;
  const settings: { -readonly [K in keyof LinkSettings]?: LinkSettings[K] } = {};
  if (queue !== undefined && queue !== null) {
    const isText = typeof queue === "string" || typeof queue === "number";
    const bound = isText ? parseQueueBound(String(queue)) : undefined;
    if (bound === undefined) {
      throw bad(
        `Link.queue is neither a size up to 256MiB nor a number of messages: ${quote(queue)}`,
      );
    }
    Object.assign(settings, bound);
  }
  if (onFull !== undefined && onFull !== null) {
    const known = ON_FULL.find((policy) => policy === onFull);
    if (known === undefined) {
      throw bad(`Link.on_full is unknown: ${quote(onFull)}; it is ${ON_FULL.join(", ")}`);
    }
    settings.onFull = known;
  }
  return settings;
}

function settingFields(settings: Partial<LinkSettings>): Record<string, string> {
  const { maxBytes, onFull } = settings;
  return {
    ...(maxBytes === undefined
      ? {}
      : { queue: formatQueueBound({ ...DEFAULT_LINK_SETTINGS, ...settings }) }),
    ...(onFull === undefined ? {} : { on_full: onFull }),
  };
}

function linkFields({ from, typeName, to }: LinkKey): Record<string, string> {
  return { ...(from === undefined ? {} : { from }), type_name: typeName, to: formatTarget(to) };
}

/**
 * Reads a request that an instance sends over its own socket.
 * @throws `bad_request`
 */
export function decodeInstanceRequest(value: unknown): Request & { kind: "Start" | "Stop" } {
  if (isObject(value)) {
    const [name, ...more] = Object.keys(value);
    if (name === "StartRuntime" && more.length === 0) {
      const fields = object(value[name], name);
      return {
        kind: "Start",
        id: id(fields["id"], `${name}.id`),
        priority: priority(fields["priority"], `${name}.priority`),
      };
    }
    if (name === "StopRuntime" && more.length === 0) {
      return { kind: "Stop", id: id(object(value[name], name)["id"], `${name}.id`) };
    }
  }
  throw bad("it is neither StartRuntime nor StopRuntime");
}

function bad(reason: string, subject: string = SUBJECT): OrchestratorError {
  return new OrchestratorError("bad_request", `${subject}: ${reason}`);
}

/** A value of the client's in a message: short, and on one line. */
function quote(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.slice(0, 64));
  return (JSON.stringify(value) ?? "nothing").slice(0, 64);
}

function object(value: unknown, name: string): Fields {
  if (!isObject(value)) throw bad(`${name} takes an object with fields`);
  return value;
}

function string(fields: Fields, name: string, key: string): string {
  const value = fields[key];
  if (typeof value !== "string") {
    throw bad(`${name}.${key} is ${value === undefined ? "missing" : "not a string"}`);
  }
  return value;
}

function id(value: unknown, name: string): InstanceId {
  if (typeof value !== "string")
    throw bad(`${name} is ${value === undefined ? "missing" : "not a string"}`);
  const parsed = parseInstanceId(value);
  if (parsed === undefined) throw bad(`${name} is not a UUID: ${quote(value)}`);
  return parsed;
}

function flag(fields: Fields, name: string): boolean {
  const value = fields["privileged"];
  if (value === undefined || value === null) return false;
  if (typeof value !== "boolean") throw bad(`${name}.privileged is neither true nor false`);
  return value;
}

function priority(value: unknown, name: string): Priority | undefined {
  if (value === undefined || value === null) return undefined;
  const parsed = typeof value === "string" ? parsePriority(value) : undefined;
  if (parsed === undefined) {
    throw bad(`${name} is unknown: ${quote(value)}; it is high, normal or low`);
  }
  return parsed;
}

function hash(value: unknown, name: string): string {
  const isByte = (n: unknown): boolean =>
    Number.isInteger(n) && (n as number) >= 0 && (n as number) <= 255;
  if (!Array.isArray(value) || value.length !== 32 || !value.every(isByte)) {
    throw bad(`${name}.hash is not a list of 32 numbers from 0 to 255`);
  }
  return Buffer.from(value as number[]).toString("hex");
}
