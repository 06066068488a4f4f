// Socket addresses as a user types them: a Unix path, or `host:port`. Parses and prints, resolves nothing.

import { OrchestratorError } from "./errors.ts";
import { isIPv4, isIPv6 } from "./ip.ts";
import { MAX_SOCKET_PATH_BYTES } from "./limits.ts";

export type Address =
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number };

export type TcpAddress = Extract<Address, { kind: "tcp" }>;

/**
 * Reads `host:port`: a name, an IPv4 address, or an IPv6 address in brackets. Where a port is given for
 * those who name none, `host` is enough.
 * @throws `misuse`, naming the text and what is wrong with it
 */
export function parseTcpAddress(text: string, otherwise?: number): TcpAddress {
  const fault = (reason: string): OrchestratorError =>
    new OrchestratorError("misuse", `Cannot use ${JSON.stringify(text)} as an address: ${reason}`);
  const colon = text.endsWith("]") ? -1 : text.lastIndexOf(":");
  if (colon < 0 && otherwise === undefined) throw fault("it is not HOST:PORT");
  const portText = colon < 0 ? String(otherwise) : text.slice(colon + 1);
  const port = Number(portText);
  const host = colon < 0 ? text : text.slice(0, colon);
  const isBracketed = host.startsWith("[") && host.endsWith("]");
  if (!isBracketed && host.includes(":")) {
    throw fault("an IPv6 address stands in brackets, [::1]:2661");
  }
  if (!/^[0-9]{1,5}$/.test(portText) || port > 65_535) throw fault("the port is not 0 to 65535");
  if (isBracketed) {
    const inner = host.slice(1, -1);
    if (!isIPv6(inner)) throw fault("what stands in brackets is not an IPv6 address");
    return { kind: "tcp", host: inner, port };
  }
  const labels = host.replace(/\.$/, "").split(".");
  if (!labels.every((label) => /^[0-9a-zA-Z_]([0-9a-zA-Z_-]{0,61}[0-9a-zA-Z_])?$/.test(label))) {
    throw fault("the host is not a name or an IP address");
  }
  return { kind: "tcp", host, port };
}

/**
 * Reads a Unix path (anything with a `/`) or `host:port`.
 * @throws `misuse`, naming the text and what is wrong with it
 */
export function parseAddress(text: string): Address {
  if (/^[a-z]+:\/\//i.test(text)) {
    throw new OrchestratorError(
      "misuse",
      `Cannot use ${JSON.stringify(text)} as an address: it is a URL, and HOST:PORT has no scheme`,
    );
  }
  if (!text.includes("/")) {
    if (!text.includes(":")) {
      throw new OrchestratorError(
        "misuse",
        `Cannot use ${JSON.stringify(text)} as an address: it is neither a path with a "/" nor HOST:PORT`,
        { hint: `for a socket in this folder, write ./${text}` },
      );
    }
    return parseTcpAddress(text);
  }
  const fault = socketPathFault(text);
  if (fault !== undefined) {
    throw new OrchestratorError(
      "misuse",
      `Cannot use socket path ${JSON.stringify(text)}: ${fault}`,
      { hint: "choose another path, which may be relative: ./orchestrator.socket" },
    );
  }
  return { kind: "unix", path: text };
}

/** Says what is wrong with a Unix socket path, or returns undefined. */
export function socketPathFault(path: string): string | undefined {
  if (path.includes("\0")) return "it contains a NUL character";
  const bytes = Buffer.byteLength(path);
  if (bytes > MAX_SOCKET_PATH_BYTES) {
    return `it is ${bytes} bytes long, and the system allows ${MAX_SOCKET_PATH_BYTES}`;
  }
  return undefined;
}

/** The spelling that `parseAddress` reads back. */
export function formatAddress(address: Address): string {
  return address.kind === "unix" ? address.path : formatHostPort(address.host, address.port);
}

/** A host as it stands before a port: an IPv6 address in brackets. */
export function formatHost(host: string): string {
  return host.includes(":") ? `[${host}]` : host;
}

/** `host:port`, with an IPv6 address in brackets. */
export function formatHostPort(host: string, port: number): string {
  return `${formatHost(host)}:${port}`;
}

/**
 * An IP address in lower case, except for the name of an interface; an IPv4 address that an IPv6 socket
 * shows mapped is the IPv4 address.
 */
export function plainAddress(address: string): string {
  const [host = "", ...zone] = address.split("%");
  const plain = host.toLowerCase().replace(/^::ffff:(?=[0-9.]+$)/, "");
  return [plain, ...zone].join("%");
}

/** Whether an IP address is of this machine alone: 127.0.0.0/8, ::1, or such a one mapped to IPv6. */
export function isLoopback(address: string): boolean {
  const plain = plainAddress(address);
  return plain === "::1" || (isIPv4(plain) && plain.startsWith("127."));
}

/** Whether a host is this machine alone: a loopback address, or a name that always leads to one. */
export function isLoopbackHost(host: string): boolean {
  return isLoopback(host) || /^(.+\.)?localhost\.?$/i.test(host);
}
