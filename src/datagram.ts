// A door: UDP. Binds one socket, sends and receives datagrams, and survives dead peers.

import type { udp } from "bun";

import { formatAddress, plainAddress, type TcpAddress } from "./address.ts";
import { OrchestratorError, systemCode } from "./errors.ts";
import { openLibc } from "./host/libc.ts";

/** What became of a datagram: handed to the kernel, no room there, or refused for this address. */
export type SendResult = "sent" | "full" | "refused";

/** A bound UDP socket. */
export interface DatagramSocket {
  readonly address: TcpAddress;
  send(datagram: Uint8Array, host: string, port: number): SendResult;
  close(): void;
}

/** What the kernel reports when a host, or the way to it, has answered that a datagram reached nobody. */
const NOBODY: ReadonlySet<string | undefined> = new Set([
  ...["ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH"],
]);

/**
 * Binds a UDP socket; `receive` gets each datagram, which is its to keep. `onNobody` is called when an
 * earlier datagram is reported to have found nobody; to whom it went is not told.
 * @throws `io` with the system's reason
 */
export async function bindDatagram(
  address: TcpAddress,
  receive: (datagram: Buffer, host: string, port: number) => void,
  onNobody: () => void,
  onFault: (error: unknown) => void,
): Promise<DatagramSocket> {
  let socket: udp.Socket<"buffer">;
  try {
    socket = await Bun.udpSocket({
      hostname: address.host,
      port: address.port,
      socket: {
        data(_socket, datagram, port, host) {
          try {
            receive(datagram, plainAddress(host), port);
          } catch (error) {
            onFault(error);
          }
        },
        // `send` may meet the same report. The error comes alone, whatever the declaration says.
        error(...reported: unknown[]) {
          if (NOBODY.has(systemCode(reported.at(-1)))) onNobody();
        },
      },
    });
  } catch (error) {
    throw new OrchestratorError("io", `Cannot listen on ${formatAddress(address)} (UDP)`, {
      cause: error,
    });
  }
  return {
    address: { kind: "tcp", host: address.host, port: socket.port },
    send: (datagram, host, port) => send(socket, datagram, host, port),
    close: () => socket.close(),
  };
}

/** The number of an interface, 0 if there is none of this name. */
type GetIndex = (name: string) => number;

let getIndex: GetIndex | undefined;

/** An address as targets spell it: where it is one of an interface, that is told by its number. */
export function numbered(address: string): string {
  const at = address.indexOf("%"); // for every datagram: most are of no interface
  if (at < 0) return address;
  getIndex ??= openIndex();
  const index = getIndex(address.slice(at + 1));
  return index === 0 ? address : `${address.slice(0, at)}%${index}`;
}

function openIndex(): GetIndex {
  const libc = openLibc({ if_nametoindex: { args: ["ptr"], returns: "u32" } });
  if (libc === undefined) return () => 0;
  return (name) => libc.if_nametoindex(Buffer.from(`${name}\0`));
}

function send(
  socket: udp.Socket<"buffer">,
  datagram: Uint8Array,
  host: string,
  port: number,
): SendResult {
  try {
    return socket.send(datagram, port, host) ? "sent" : "full";
  } catch {
    // What the kernel tells here may be about an earlier datagram, perhaps to another peer, and then
    // this one was not sent yet. It tells that once: what is about this one, it says again.
  }
  try {
    return socket.send(datagram, port, host) ? "sent" : "full";
  } catch {
    return "refused";
  }
}
