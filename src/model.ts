// The domain's words and their parsers: instance ids, priorities, type names, link targets.
// Knows no socket, no process and no wire format.

import { formatHostPort } from "./address.ts";
import { isIPv4, isIPv6 } from "./ip.ts";
import { MAX_QUEUE_BYTES, MAX_TOTAL_QUEUE_BYTES, MAX_TYPE_NAME_BYTES } from "./limits.ts";

/** A registered runtime: a UUID in its canonical form, lower case with hyphens. */
export type InstanceId = string;

const HYPHENATED = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const SIMPLE = /^[0-9a-f]{32}$/;

/**
 * Reads a UUID in any of the forms that existing clients accept (hyphenated, simple, `{…}`,
 * `urn:uuid:…`, any case) into its canonical form, or returns undefined.
 */
export function parseInstanceId(text: string): InstanceId | undefined {
  if (HYPHENATED.test(text)) return text;
  let id = text.toLowerCase();
  if (id.startsWith("urn:uuid:")) id = id.slice(9);
  else if (id.startsWith("{") && id.endsWith("}")) id = id.slice(1, -1);
  if (HYPHENATED.test(id)) return id;
  if (!SIMPLE.test(id)) return undefined;
  return `${id.slice(0, 8)}-${id.slice(8, 12)}-${id.slice(12, 16)}-${id.slice(16, 20)}-${id.slice(20)}`;
}

/** A new id; ids made later sort after earlier ones. */
export function newInstanceId(): InstanceId {
  return Bun.randomUUIDv7();
}

export type Priority = "high" | "normal" | "low";

/** The `nice` value of each priority. */
export const NICE: Readonly<Record<Priority, number>> = { high: -10, normal: 0, low: 10 };

export function parsePriority(text: string): Priority | undefined {
  return Object.hasOwn(NICE, text) ? (text as Priority) : undefined;
}

/** Says what is wrong with a type name, or returns undefined: 1 to 1024 bytes of UTF-8 without NUL. */
export function typeNameFault(name: string): string | undefined {
  if (name.length === 0) return "it is empty";
  if (name.includes("\0")) return "it contains a NUL character";
  if (!name.isWellFormed()) return "it contains an unpaired surrogate";
  const bytes = Buffer.byteLength(name);
  if (bytes > MAX_TYPE_NAME_BYTES) {
    return `it is ${bytes} bytes long, more than ${MAX_TYPE_NAME_BYTES}`;
  }
  return undefined;
}

/** Where a link leads: an instance here, or another orchestrator's UDP socket. */
export type LinkTarget =
  | { readonly kind: "instance"; readonly id: InstanceId }
  | { readonly kind: "remote"; readonly host: string; readonly port: number };

/**
 * Reads a UUID or `IP:PORT` (`127.0.0.1:2661`, `[::1]:2661`, `[fe80::1%3]:2661`); names are not resolved here.
 * An interface is told by its number only, as existing clients read no other.
 */
export function parseTarget(text: string): LinkTarget | undefined {
  const id = parseInstanceId(text);
  if (id !== undefined) return { kind: "instance", id };
  const match = /^(?:\[([0-9a-fA-F:.]+)(?:%([0-9]{1,10}))?\]|([0-9.]+)):([0-9]{1,5})$/.exec(text);
  if (match === null) return undefined;
  const [, v6, zoneText, v4] = match;
  const port = Number(match[4]);
  const zone = Number(zoneText ?? 0);
  if (port < 1 || port > 65_535 || zone > 0xffff_ffff) return undefined;
  if (v4 !== undefined) return isIPv4(v4) ? { kind: "remote", host: v4, port } : undefined;
  if (v6 === undefined || !isIPv6(v6)) return undefined;
  const host = dotted(new URL(`http://[${v6}]/`).hostname.slice(1, -1)); // the canonical spelling
  return { kind: "remote", host: zone === 0 ? host : `${host}%${zone}`, port };
}

/** An IPv4 address that is mapped to IPv6 is told as existing clients print it: `::ffff:127.0.0.1`. */
function dotted(address: string): string {
  return address.replace(/^::ffff:([0-9a-f]+):([0-9a-f]+)$/, (_, high: string, low: string) => {
    const bytes = Buffer.from(high.padStart(4, "0") + low.padStart(4, "0"), "hex");
    return `::ffff:${bytes.join(".")}`;
  });
}

/** The one spelling of a target: the id, `127.0.0.1:2661` or `[::1]:2661`. */
export function formatTarget(target: LinkTarget): string {
  return target.kind === "instance" ? target.id : formatHostPort(target.host, target.port);
}

/** One link: messages of `typeName` from `from` (undefined: from any) go to `to`. */
export interface LinkKey {
  readonly from: InstanceId | undefined;
  readonly typeName: string;
  readonly to: LinkTarget;
}

/** What happens to the messages of a link whose queue is full. */
export type OnFull = "drop-oldest" | "drop-newest" | "block";

export const ON_FULL: readonly OnFull[] = ["drop-oldest", "drop-newest", "block"];

/** How much of a link may wait, and what happens beyond. */
export interface LinkSettings {
  readonly maxBytes: number;
  readonly maxMessages: number;
  readonly onFull: OnFull;
  /** The manifest that it was made from, if any. */
  readonly owner: string | null;
}

export const DEFAULT_LINK_SETTINGS: LinkSettings = {
  maxBytes: MAX_QUEUE_BYTES,
  maxMessages: Number.POSITIVE_INFINITY,
  onFull: "drop-oldest",
  owner: null,
};

const UNITS: Readonly<Record<string, number>> = { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 };

/** Reads a size (`4MiB`, `512KiB`, `100B`), or returns undefined. */
export function parseSize(text: string): number | undefined {
  const match = /^([0-9]{1,12}) ?(B|KiB|MiB|GiB)$/.exec(text);
  return match === null ? undefined : Number(match[1]) * (UNITS[match[2] as string] as number);
}

/** The spelling of a size that `parseSize` reads back, in its largest whole unit. */
export function formatSize(bytes: number): string {
  const unit = ["GiB", "MiB", "KiB"].find((name) => bytes % (UNITS[name] as number) === 0) ?? "B";
  return `${bytes / (UNITS[unit] as number)}${unit}`;
}

/** Reads the bound of a queue, a size or a number of messages (`100`), or returns undefined. */
export function parseQueueBound(
  text: string,
): Pick<LinkSettings, "maxBytes" | "maxMessages"> | undefined {
  if (/^[1-9][0-9]{0,8}$/.test(text)) {
    return { maxBytes: MAX_TOTAL_QUEUE_BYTES, maxMessages: Number(text) };
  }
  const maxBytes = parseSize(text);
  if (maxBytes === undefined || maxBytes < 1 || maxBytes > MAX_TOTAL_QUEUE_BYTES) return undefined;
  return { maxBytes, maxMessages: Number.POSITIVE_INFINITY };
}

/** The spelling of a queue's bound that `parseQueueBound` reads back. */
export function formatQueueBound({
  maxBytes,
  maxMessages,
}: Pick<LinkSettings, "maxBytes" | "maxMessages">): string {
  if (Number.isFinite(maxMessages)) return String(maxMessages);
  return formatSize(maxBytes);
}

/** How the process of an instance ended. Exactly one of code and signal is set. */
export interface Exit {
  readonly code: number | undefined;
  readonly signal: string | undefined;
}

export function formatExit(exit: Exit): string {
  return exit.signal === undefined ? `code ${exit.code ?? 0}` : `signal ${exit.signal}`;
}

/** An exit as keys of a record: one of `code` and `signal`. */
export function exitFields({ code, signal }: Exit): { code: number } | { signal: string } {
  return signal === undefined ? { code: code ?? 0 } : { signal };
}
