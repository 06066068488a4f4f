// A door: who is at the other end of a connection, as the kernel tells it.
//
// Of a Unix socket: pid, uid and gid of the process that connected. Of a TCP connection from this
// machine: the uid that owns the peer's socket. Decides nothing about who may do what.

import { ptr } from "bun:ffi";
import { readFile } from "node:fs/promises";

import { plainAddress } from "../address.ts";
import { openLibc } from "./libc.ts";

/** The process that connected, as it was then. */
export interface Credentials {
  /** 0 if it is not visible here: it is in another pid namespace. */
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

/** One end of a TCP connection; an IPv4 address also where an IPv6 socket shows it mapped. */
export interface Endpoint {
  readonly address: string;
  readonly port: number;
}

// socket(7): getsockopt(fd, SOL_SOCKET, SO_PEERCRED, struct ucred { pid, uid, gid }, length)
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const UCRED_BYTES = 12;

type GetPeer = (fd: number) => Credentials | undefined;

let getPeer: GetPeer | undefined;

/** Who connected to a Unix socket; undefined where the system or Bun gives no way to ask. */
export function peerCredentials(fd: number): Credentials | undefined {
  getPeer ??= open();
  return getPeer(fd);
}

function open(): GetPeer {
  const libc = openLibc({
    getsockopt: { args: ["i32", "i32", "i32", "ptr", "ptr"], returns: "i32" },
  });
  if (libc === undefined) return () => undefined;
  const credentials = Buffer.alloc(UCRED_BYTES);
  const length = Buffer.alloc(4);
  return (fd) => {
    length.writeUInt32LE(UCRED_BYTES);
    const result = libc.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, ptr(credentials), ptr(length));
    if (result !== 0) return undefined;
    return {
      pid: credentials.readInt32LE(0),
      uid: credentials.readUInt32LE(4),
      gid: credentials.readUInt32LE(8),
    };
  };
}

/** The tables of TCP sockets: a row for each, with both ends and the uid of its owner. */
const TABLES = ["/proc/net/tcp", "/proc/net/tcp6"];

/** Looks up owners of TCP sockets of this machine. Questions that come together share one reading. */
export class SocketOwners {
  readonly #read: (path: string) => Promise<string>;
  #next: Promise<readonly string[]> | undefined;
  #last: Promise<unknown> = Promise.resolve();

  constructor(read: (path: string) => Promise<string> = (path) => readFile(path, "latin1")) {
    this.#read = read;
  }

  /** The uid that owns the socket from `local` to `remote`; undefined if there is none, or no telling. */
  async ownerOf(local: Endpoint, remote: Endpoint): Promise<number | undefined> {
    // A reading that has begun may be too old; the one after it serves all who ask meanwhile.
    this.#next ??= this.#last.then(() => {
      this.#next = undefined;
      const texts = TABLES.map((path) => this.#read(path).catch(() => "")); // without IPv6: one table
      const reading = Promise.all(texts);
      this.#last = reading;
      return reading;
    });
    for (const table of await this.#next) {
      const uid = findOwner(table, local, remote);
      if (uid !== undefined) return uid;
    }
    return undefined;
  }
}

/** Only rows with both ports are read: a table may have a hundred thousand of others. */
function findOwner(table: string, local: Endpoint, remote: Endpoint): number | undefined {
  const [near, far] = [portWord(local), portWord(remote)];
  for (let at = table.indexOf(near); at >= 0; at = table.indexOf(near, at + 1)) {
    const end = table.indexOf("\n", at);
    const row = table.slice(table.lastIndexOf("\n", at) + 1, end < 0 ? table.length : end);
    const uid = row.includes(far) ? ownerIn(row, local, remote) : undefined;
    if (uid !== undefined) return uid;
  }
  return undefined;
}

/** A port as it ends an address in a row: `:A291 `. */
function portWord({ port }: Endpoint): string {
  return `:${port.toString(16).toUpperCase().padStart(4, "0")} `;
}

/**
 * The owner in a row, if it is that of these ends. A socket that nobody has open any more has the inode
 * 0, and then its uid is that of nobody: whoever connected and left at once could not be told from root.
 */
function ownerIn(row: string, local: Endpoint, remote: Endpoint): number | undefined {
  const [, near = "", far = "", , , , , uid, , inode = "0"] = row.trim().split(/\s+/);
  if (inode === "0" || uid === undefined) return undefined;
  return isEndpoint(near, local) && isEndpoint(far, remote) ? Number(uid) : undefined;
}

function isEndpoint(text: string, { address, port }: Endpoint): boolean {
  const found = readEndpoint(text);
  return found?.address === plainAddress(address) && found.port === port;
}

/** `0100007F:A291`: words of 32 bits in the machine's order, then the port. */
function readEndpoint(text: string): Endpoint | undefined {
  const [address = "", port = ""] = text.split(":");
  const bytes = Buffer.from(address, "hex");
  if (bytes.length !== 4 && bytes.length !== 16) return undefined;
  bytes.swap32();
  const isMapped = bytes.length === 16 && bytes.subarray(0, 12).equals(MAPPED);
  const number = isMapped ? bytes.subarray(12) : bytes;
  return {
    address: number.length === 4 ? number.join(".") : formatIPv6(number),
    port: Number.parseInt(port, 16),
  };
}

const MAPPED = Buffer.from("00000000000000000000ffff", "hex");

/** The spelling that sockets give: lower case, the longest run of zeros left out. */
function formatIPv6(bytes: Buffer): string {
  const groups = Array.from({ length: 8 }, (_, index) =>
    bytes.readUInt16BE(index * 2).toString(16),
  );
  return new URL(`http://[${groups.join(":")}]/`).hostname.slice(1, -1);
}
