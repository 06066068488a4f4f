// Control requests and responses: untrusted JSON text ↔ typed values, in both dialects.
//
// Pure. `unknown` ends here: what leaves `decodeRequest` is valid. How bytes are framed (lines or
// size-prefixed) is the business of `lines.ts` and `frame.ts`; who executes is `control.ts`.
// An enum value is externally tagged: `"Info"`, or an object with one key: `{"Stop":"<uuid>"}`.

import { errorCode, type ErrorCode, messageChain, OrchestratorError } from "./errors.ts";
import {
  bad,
  decodeChanges,
  decodeLinkSettings,
  decodeSettings,
  type Fields,
  flag,
  hash,
  id,
  ids,
  object,
  oneOf,
  optional,
  priority,
  quote,
  settingFields,
  path,
  text,
  upTo,
} from "./protocol/fields.ts";
import { isObject, parseJson, parseTrusted } from "./json.ts";
import { MAX_QUERY_ITEMS, MAX_UPLOAD_BYTES } from "./limits.ts";
import {
  DEFAULT_LINK_SETTINGS,
  formatQueueBound,
  formatTarget,
  type InstanceId,
  type LinkKey,
  type LinkSettings,
  parseTarget,
  type Priority,
  typeNameFault,
} from "./model.ts";
import type { InstanceSettings } from "./settings.ts";

const SUBJECT = "Cannot parse request";

/** The version that `Version` answers: the one of the protocol that existing clients know. */
export const PROTOCOL_VERSION = "0.1.0";

/** A request of the control socket. Field names follow the domain, not the wire. */
export type Request =
  | { readonly kind: "Version" }
  | { readonly kind: "Info" }
  | { readonly kind: "Clear" }
  | { readonly kind: "Token"; readonly token: string }
  | {
      readonly kind: "Add";
      readonly id: InstanceId;
      readonly path: string;
      /** What is not given becomes the default. */
      readonly settings: Partial<InstanceSettings>;
    }
  | {
      readonly kind: "AddWithBinary";
      readonly id: InstanceId;
      /** Bytes that follow, 0 to `MAX_UPLOAD_BYTES`. */
      readonly length: number;
      /** SHA-256 in lower-case hexadecimal. */
      readonly hash: string;
      /** Where the client has it; its name is taken from there if none is given. */
      readonly path?: string;
      /** Whether it becomes the program of an instance that is there already. */
      readonly replace?: boolean;
      readonly settings: Partial<InstanceSettings>;
    }
  | {
      readonly kind: "Update";
      readonly id: InstanceId;
      /** Where its program is from now on; what is not given stays as it is. */
      readonly path: string | undefined;
      readonly settings: Partial<InstanceSettings>;
    }
  | { readonly kind: "Remove"; readonly id: InstanceId }
  | { readonly kind: "Start"; readonly id: InstanceId; readonly priority: Priority | undefined }
  | { readonly kind: "Stop"; readonly id: InstanceId }
  | { readonly kind: "Stdout"; readonly id: InstanceId }
  | { readonly kind: "Environment"; readonly id: InstanceId }
  | { readonly kind: "Sent"; readonly id: InstanceId; readonly typeName: string }
  | { readonly kind: "Output"; readonly query: OutputQuery }
  | { readonly kind: "Events"; readonly query: EventQuery }
  | { readonly kind: "Resources"; readonly ids: readonly InstanceId[] | undefined }
  | {
      readonly kind: "Link";
      readonly link: LinkKey;
      /** What is not given stays as it is, or becomes the default. */
      readonly settings?: Partial<LinkSettings>;
    }
  | { readonly kind: "Unlink"; readonly link: LinkKey };

/** Which part of a history is asked for. Times are in milliseconds since the epoch. */
export interface HistoryQuery {
  /** Undefined: of all. */
  readonly ids: readonly InstanceId[] | undefined;
  /** Only so many of the newest. */
  readonly last: number | undefined;
  readonly since: number | undefined;
  readonly until: number | undefined;
  /** Go on with what comes from now on. */
  readonly follow: boolean;
}

export interface OutputQuery extends HistoryQuery {
  readonly stream: "stdout" | "stderr" | undefined;
}

export interface EventQuery extends HistoryQuery {
  /** Only those with a larger number: to go on where a reader ended. */
  readonly after: number | undefined;
}

/** What a client reads back: a value, or the chain of messages, with a code in the native dialect. */
export type Response =
  { readonly Ok: unknown } | { readonly Err: readonly string[]; readonly code?: ErrorCode };

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

/** A large value, as JSON in pieces: every copy of it would cost more than to make it. */
export class JsonPieces {
  readonly pieces: readonly Buffer[];

  constructor(pieces: readonly Buffer[]) {
    this.pieces = pieces;
  }
}

/** The JSON text of a success, in pieces if the value is. */
export function encodeOk(value: unknown): string | JsonPieces {
  if (!(value instanceof JsonPieces)) return `{"Ok":${JSON.stringify(value ?? null)}}`;
  return new JsonPieces([OK_HEAD, ...value.pieces, OK_TAIL]);
}

const OK_HEAD = Buffer.from('{"Ok":');
const OK_TAIL = Buffer.from("}");

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
  const value = parseTrusted(text, subject);
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
      return `Add(${request.id}, ${JSON.stringify(request.path)}${describeSettings(request.settings)})`;
    case "AddWithBinary":
      return `AddWithBinary(${request.id}, ${request.length} bytes${describeSettings(request.settings)})`;
    case "Update":
      return `Update(${request.id}${describeSettings(request.settings)})`;
    case "Output":
    case "Events":
      return `${request.kind}(${JSON.stringify(request.query)})`;
    case "Resources":
      return `Resources(${request.ids?.join(", ") ?? "all"})`;
    case "Start":
      return `Start(${request.id}${request.priority === undefined ? "" : `, ${request.priority}`})`;
    case "Remove":
    case "Stop":
    case "Stdout":
    case "Environment":
      return `${request.kind}(${request.id})`;
    case "Token":
      return "Token(…)"; // never to be seen
    case "Sent":
      return `Sent(${request.id}, ${JSON.stringify(request.typeName)})`;
    case "Link":
    case "Unlink":
      return `${request.kind}(${JSON.stringify(linkFields(request.link))})`;
  }
}

/** Settings that were given; of variables only the names, since values may be secret. */
function describeSettings(settings: Partial<InstanceSettings>): string {
  const { env, privileged, ...others } = settings;
  const fields = settingFields(privileged === true ? { privileged, ...others } : others);
  if (env !== undefined) fields["env"] = Object.keys(env);
  return Object.keys(fields).length === 0 ? "" : `, ${JSON.stringify(fields)}`;
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
      return {
        kind: name,
        id: id(fields["id"], `${name}.id`),
        path: path(fields["path"], `${name}.path`),
        settings: { privileged: false, ...decodeSettings(fields, name) },
      };
    }
    case "Update": {
      const fields = object(body, name);
      return {
        kind: name,
        id: id(fields["id"], `${name}.id`),
        path: optional(fields, name, "path", path),
        settings: decodeChanges(fields, name),
      };
    }
    case "AddWithBinary": {
      const fields = object(body, name);
      const length = fields["length"];
      if (typeof length !== "number" || !Number.isSafeInteger(length) || length < 0) {
        throw bad(`${name}.length is not a whole number of bytes`);
      }
      const origin = optional(fields, name, "path", path);
      const replace = optional(fields, name, "replace", flag) ?? false;
      const upload = {
        kind: name,
        id: id(fields["id"], `${name}.id`),
        length,
        hash: hash(fields["hash"], name),
        ...(origin === undefined ? {} : { path: origin }),
        ...(replace ? { replace } : {}),
        settings: replace
          ? decodeChanges(fields, name)
          : { privileged: false, ...decodeSettings(fields, name) },
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
    case "Environment":
      return { kind: name, id: id(body, name) };
    case "Token":
      return { kind: name, token: text(body, name) };
    case "Sent": {
      const fields = object(body, name);
      return {
        kind: name,
        id: id(fields["id"], `${name}.id`),
        typeName: typeNameOf(fields, name),
      };
    }
    case "Start": {
      if (typeof body === "string") return { kind: name, id: id(body, name), priority: undefined };
      const fields = object(body, name);
      return {
        kind: name,
        id: id(fields["id"], `${name}.id`),
        priority: optional(fields, name, "priority", priority),
      };
    }
    case "Link":
    case "Unlink": {
      const fields = object(body, name);
      const typeName = typeNameOf(fields, name);
      const from = fields["from"];
      const to = parseTarget(text(fields["to"], `${name}.to`));
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
      const settings = decodeLinkSettings(fields);
      return Object.keys(settings).length === 0 ? link : { ...link, settings };
    }
    case "Output": {
      const fields = object(body ?? {}, name);
      if (fields["follow"] === true && fields["until"] !== undefined && fields["until"] !== null) {
        throw bad(`${name}.until does not go with ${name}.follow`);
      }
      return {
        kind: name,
        query: {
          ...historyQuery(fields, name),
          stream: optional(fields, name, "stream", (value, at) => oneOf(value, at, STREAMS)),
        },
      };
    }
    case "Events": {
      const fields = object(body ?? {}, name);
      const after = optional(fields, name, "after", count);
      return { kind: name, query: { ...historyQuery(fields, name), after } };
    }
    case "Resources":
      return {
        kind: name,
        ids: body === undefined || body === null ? undefined : ids(body, name),
      };
    default:
      throw bad(`unknown request ${quote(name)}`);
  }
}

function typeNameOf(fields: Fields, name: string): string {
  const typeName = text(fields["type_name"], `${name}.type_name`);
  const fault = typeNameFault(typeName);
  if (fault !== undefined) throw bad(`${name}.type_name cannot be used: ${fault}`);
  return typeName;
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
    case "Environment":
      return { [request.kind]: request.id };
    case "Token":
      return { Token: request.token };
    case "Sent":
      return { Sent: { id: request.id, type_name: request.typeName } };
    case "Start":
      return { Start: { id: request.id, priority: request.priority ?? null } };
    case "Add":
      return { Add: { id: request.id, path: request.path, ...addedFields(request.settings) } };
    case "AddWithBinary":
      return {
        AddWithBinary: {
          id: request.id,
          length: request.length,
          hash: [...Buffer.from(request.hash, "hex")],
          ...(request.path === undefined ? {} : { path: request.path }),
          ...(request.replace === true
            ? { replace: true, ...settingFields(request.settings) }
            : addedFields(request.settings)),
        },
      };
    case "Update": {
      const { path } = request;
      const fields = settingFields(request.settings);
      return { Update: { id: request.id, ...(path === undefined ? {} : { path }), ...fields } };
    }
    case "Output":
    case "Events":
      return { [request.kind]: request.query };
    case "Resources":
      return { Resources: request.ids ?? null };
    case "Link":
      return {
        Link: { ...linkFields(request.link), ...linkSettingFields(request.settings ?? {}) },
      };
    case "Unlink":
      return { Unlink: linkFields(request.link) };
  }
}

/** Daemons of before know of all settings only this one, and some of them insist on it. */
function addedFields(settings: Partial<InstanceSettings>): Record<string, unknown> {
  return { privileged: false, ...settingFields(settings) };
}

const STREAMS = ["stdout", "stderr"] as const;

function historyQuery(fields: Fields, name: string): HistoryQuery {
  return {
    ids: optional(fields, name, "ids", ids),
    last: optional(fields, name, "last", (value, at) => upTo(value, at, MAX_QUERY_ITEMS)),
    since: optional(fields, name, "since", count),
    until: optional(fields, name, "until", count),
    follow: optional(fields, name, "follow", flag) ?? false,
  };
}

function count(value: unknown, name: string): number {
  return upTo(value, name, Number.MAX_SAFE_INTEGER);
}

function linkSettingFields(settings: Partial<LinkSettings>): Record<string, string> {
  const { maxBytes, onFull, owner } = settings;
  return {
    ...(maxBytes === undefined
      ? {}
      : { queue: formatQueueBound({ ...DEFAULT_LINK_SETTINGS, ...settings }) }),
    ...(onFull === undefined ? {} : { on_full: onFull }),
    ...(owner === undefined || owner === null ? {} : { owner }),
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
        priority: optional(fields, name, "priority", priority),
      };
    }
    if (name === "StopRuntime" && more.length === 0) {
      return { kind: "Stop", id: id(object(value[name], name)["id"], `${name}.id`) };
    }
  }
  throw bad("it is neither StartRuntime nor StopRuntime");
}
