// Control requests and responses: untrusted JSON text ↔ typed values, in both dialects.
//
// Pure. `unknown` ends here: what leaves `decodeRequest` is valid. How bytes are framed (lines or
// size-prefixed) is the business of `lines.ts` and `frame.ts`; who executes is `control.ts`.
// An enum value is externally tagged: `"Info"`, or an object with one key: `{"Stop":"<uuid>"}`.

import { errorCode, type ErrorCode, messageChain, OrchestratorError } from "./errors.ts";
import { MAX_JSON_DEPTH, MAX_UPLOAD_BYTES } from "./limits.ts";
import {
  formatTarget,
  type InstanceId,
  type LinkKey,
  parseInstanceId,
  parsePriority,
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
  | { readonly kind: "Link"; readonly link: LinkKey }
  | { readonly kind: "Unlink"; readonly link: LinkKey };

/** The accounts of one link, in messages: routed = delivered + dropped (all reasons) + queued. */
export interface LinkInfo {
  readonly type_name: string;
  /** The only instance whose messages it takes; null: any. */
  readonly from: string | null;
  readonly to: string;
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
  const value = parseJson(text);
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
  return `{"Ok":${JSON.stringify(value)}}`;
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
      return `${request.kind}(${JSON.stringify(requestValue(request))})`;
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
        throw bad(
          `${name}.to is neither an instance id nor IP:PORT: ${JSON.stringify(fields["to"])}`,
        );
      }
      return {
        kind: name,
        link: {
          from: from === undefined || from === null ? undefined : id(from, `${name}.from`),
          typeName,
          to,
        },
      };
    }
    default:
      throw bad(`unknown request ${JSON.stringify(name.slice(0, 64))}`);
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
    case "Unlink": {
      const { from, typeName, to } = request.link;
      return {
        [request.kind]: {
          ...(from === undefined ? {} : { from }),
          type_name: typeName,
          to: formatTarget(to),
        },
      };
    }
  }
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

/**
 * Parses JSON whose nesting is bounded; `subject` begins the message of an error.
 * @throws `bad_request`
 */
export function parseJson(text: string, subject: string = SUBJECT): unknown {
  if (jsonDepth(text) > MAX_JSON_DEPTH)
    throw bad(`nested deeper than ${MAX_JSON_DEPTH} levels`, subject);
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    const reason = (error as Error).message.replace(/^JSON Parse error: /, "");
    throw bad(`it is not valid JSON (${reason})`, subject);
  }
}

function jsonDepth(text: string): number {
  let depth = 0;
  let deepest = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === 0x22) {
      for (i++; i < text.length && text.charCodeAt(i) !== 0x22; i++) {
        if (text.charCodeAt(i) === 0x5c) i++;
      }
    } else if (c === 0x7b || c === 0x5b) {
      deepest = Math.max(deepest, ++depth);
    } else if (c === 0x7d || c === 0x5d) depth--;
  }
  return deepest;
}

function bad(reason: string, subject: string = SUBJECT): OrchestratorError {
  return new OrchestratorError("bad_request", `${subject}: ${reason}`);
}

export function isObject(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
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
  if (parsed === undefined)
    throw bad(`${name} is not a UUID: ${JSON.stringify(value.slice(0, 64))}`);
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
    throw bad(
      `${name} is unknown: ${JSON.stringify(value)?.slice(0, 64)}; it is high, normal or low`,
    );
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
