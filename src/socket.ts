// A door: stream sockets. Listens and connects on Unix paths and TCP, and hands on bytes.
//
// Knows nothing of what travels. A handler that throws costs its own connection only. The kernel
// takes what it takes: `write` queues nothing, so every owner of a connection keeps its own queue.

import { chmodSync, lstatSync, renameSync, rmSync, unlinkSync } from "node:fs";

import type { Socket, TCPSocketListener, UnixSocketListener } from "bun";

import { type Address, formatAddress, socketPathFault } from "./address.ts";
import { OrchestratorError, systemCode } from "./errors.ts";
import { type Credentials, type Endpoint, peerCredentials } from "./host/credentials.ts";
import {
  CONNECT_TIMEOUT_MS,
  HANDSHAKE_MS,
  KEEP_ALIVE_MS,
  LINGER_MS,
  MAX_HANDSHAKES,
} from "./limits.ts";

/** What happens on a connection. Chunks are the handler's to keep. */
export interface StreamHandlers {
  data(chunk: Buffer): void;
  /** The kernel takes bytes again after it had taken fewer than offered. */
  drain(): void;
  /** The peer sends no more; it may still read. */
  end(): void;
  /** Both directions are gone. Always the last call, exactly once. */
  close(): void;
}

/** Where a connection that was accepted comes from. */
export type Origin =
  | {
      readonly kind: "unix";
      /** Who connected, where the system tells. */
      readonly credentials: Credentials | undefined;
    }
  | { readonly kind: "tcp"; readonly local: Endpoint; readonly remote: Endpoint };

/** One open connection. */
export interface Connection {
  /** Of one that was accepted. */
  readonly origin?: Origin;
  /** Of one that was accepted: the number of its file descriptor, the lowest that was free. */
  readonly descriptor?: number;
  /** Who is at the other end, for the log. */
  readonly peer: string;
  /** Returns how many bytes the kernel took: 0 if it is full or the connection is gone. */
  write(bytes: Uint8Array): number;
  /** Sends the end of the stream; closes when the peer does, or after a moment. */
  finish(): void;
  /** Ends both directions now. */
  close(): void;
  pause(): void;
  resume(): void;
}

/** A listening socket. */
export interface Listener {
  /** With the port that was chosen if none was given. */
  readonly address: Address;
  /** Takes no more connections; open ones stay. Removes its own socket file. */
  stop(): void;
  /**
   * With TLS: shows and asks for this from now on, and open connections stay.
   * @throws the reason if that cannot be used, and then nothing has changed
   */
  renew?(tls: ServerTls): void;
}

/** What a TCP listener shows and asks for, as texts in PEM. No byte comes through before that is settled. */
export interface ServerTls {
  readonly cert: string;
  readonly key: string;
  /** Who must have signed the certificate of a client; without it, clients need none. */
  readonly clientCa?: string | undefined;
}

/** How a listener deals with those who have not shaken hands. */
export interface TlsListener extends ServerTls {
  /** From a file descriptor of this number on, they are scarce. */
  readonly maxDescriptor: number;
  /** Hears of everybody who did not come through. */
  refused(peer: string, reason: string): void;
}

/** Opens a connection's handlers; whatever it throws closes the connection. */
export type Accept = (connection: Connection) => StreamHandlers;

/** Hears of handlers that threw: defects, never a peer's fault. */
export type OnFault = (error: unknown) => void;

interface State {
  handlers: StreamHandlers | undefined;
  linger: ReturnType<typeof setTimeout> | undefined;
}

/** For a connection that is refused: whatever happens on it is of no interest. */
export const DISCARD: StreamHandlers = { data() {}, drain() {}, end() {}, close() {} };

function wrap(socket: Socket<State>, peer: string, origin?: Origin): Connection {
  return {
    ...(origin === undefined ? {} : { origin, descriptor: socket.fd }),
    peer,
    write: (bytes) => Math.max(0, socket.write(bytes)),
    finish: () => {
      socket.data.linger ??= setTimeout(() => socket.terminate(), LINGER_MS);
      socket.shutdown();
    },
    close: () => socket.terminate(),
    pause: () => void socket.pause(),
    resume: () => void socket.resume(),
  };
}

/** The callbacks that Bun wants, around our handlers. */
function callbacks(onOpen: (socket: Socket<State>) => StreamHandlers, onFault: OnFault) {
  const guard = (socket: Socket<State>, action: (handlers: StreamHandlers) => void): void => {
    try {
      if (socket.data?.handlers !== undefined) action(socket.data.handlers);
    } catch (error) {
      onFault(error);
      socket.terminate();
    }
  };
  return {
    open(socket: Socket<State>) {
      socket.data = { handlers: DISCARD, linger: undefined };
      guard(socket, () => {
        socket.data.handlers = onOpen(socket);
      });
    },
    data(socket: Socket<State>, chunk: Buffer) {
      guard(socket, (handlers) => handlers.data(chunk));
    },
    drain(socket: Socket<State>) {
      guard(socket, (handlers) => handlers.drain());
    },
    end(socket: Socket<State>) {
      guard(socket, (handlers) => handlers.end());
    },
    close(socket: Socket<State>) {
      clearTimeout(socket.data?.linger);
      guard(socket, (handlers) => {
        socket.data.handlers = undefined;
        handlers.close();
      });
    },
    error(_socket: Socket<State>, _error: Error) {
      // A reset by the peer: `close` follows and says all there is to say.
    },
  };
}

/**
 * Listens on an address, over TCP perhaps with TLS. A Unix socket gets mode 0600 and appears under its name only when it is
 * ready; that nobody else serves that name is the caller's to know.
 * @throws `io` with the system's reason
 */
export function listen(
  address: Address,
  accept: Accept,
  onFault: OnFault,
  tls?: TlsListener,
): Listener {
  let connections = 0;
  const socket = callbacks((opened) => {
    // A peer that has vanished from the network is noticed even if nothing is sent.
    if (address.kind === "tcp") opened.setKeepAlive(true, KEEP_ALIVE_MS);
    const peer =
      address.kind === "unix"
        ? `unix:${++connections}`
        : `${opened.remoteAddress}:${opened.remotePort}`;
    return accept(wrap(opened, peer, originOf(address.kind, opened)));
  }, onFault);
  try {
    return address.kind === "unix"
      ? listenUnix(address.path, socket)
      : listenTcp(address.host, address.port, socket, tls);
  } catch (error) {
    throw new OrchestratorError("io", `Cannot listen on ${formatAddress(address)}`, {
      cause: error,
    });
  }
}

function originOf(kind: Address["kind"], socket: Socket<State>): Origin {
  if (kind === "unix") return { kind, credentials: peerCredentials(socket.fd) };
  const { localAddress, localPort, remoteAddress, remotePort } = socket;
  return {
    kind,
    local: { address: localAddress, port: localPort },
    remote: { address: remoteAddress, port: remotePort },
  };
}

type Callbacks = ReturnType<typeof callbacks>;

function listenTcp(
  hostname: string,
  port: number,
  socket: Callbacks,
  tls: TlsListener | undefined,
): Listener {
  const options = { hostname, exclusive: true, allowHalfOpen: true };
  if (tls === undefined) {
    const listener = Bun.listen<State>({ ...options, port, socket });
    return {
      address: { kind: "tcp", host: hostname, port: listener.port },
      stop: () => listener.stop(),
    };
  }
  const handlers = shaken(socket, tls);
  const open = (at: number, shown: ServerTls): TCPSocketListener<State> =>
    Bun.listen<State>({ ...options, port: at, tls: tlsOptions(shown), socket: handlers });
  let listener = open(port, tls);
  const chosen = listener.port;
  return {
    address: { kind: "tcp", host: hostname, port: chosen },
    stop: () => listener.stop(),
    // What a listener of Bun shows is settled when it begins: another one takes its place.
    renew: (next) => {
      open(0, next).stop(); // whether it can be used is known before anything is given up
      listener.stop();
      listener = open(chosen, next);
    },
  };
}

/** How many may be about to shake hands while descriptors are scarce. */
const SCARCE_HANDSHAKES = 8;

/**
 * Hands a connection on when its handshake is done. (Without `handshake` Bun would call `open` only then,
 * and nobody would know of those who never come so far.) They are few, and have little time.
 */
function shaken(socket: Callbacks, tls: TlsListener) {
  const waiting = new Map<Socket<State>, ReturnType<typeof setTimeout>>();
  const settle = (peer: Socket<State>): boolean => {
    clearTimeout(waiting.get(peer));
    return waiting.delete(peer);
  };
  const tell = (peer: Socket<State>, reason: string): void => {
    tls.refused(`${peer.remoteAddress}:${peer.remotePort}`, reason);
  };
  const refuse = (peer: Socket<State>, reason: string): void => {
    settle(peer);
    tell(peer, reason);
    peer.terminate();
  };
  return {
    ...socket,
    open(peer: Socket<State>) {
      peer.data = { handlers: undefined, linger: undefined };
      const most = peer.fd < tls.maxDescriptor ? MAX_HANDSHAKES : SCARCE_HANDSHAKES;
      const [oldest] = waiting.keys();
      if (oldest !== undefined && waiting.size >= most) {
        refuse(oldest, `${most} others have not shaken hands either, which is the limit`);
      }
      const late = (): void => refuse(peer, `it has not shaken hands within ${HANDSHAKE_MS} ms`);
      waiting.set(peer, setTimeout(late, HANDSHAKE_MS));
    },
    handshake(peer: Socket<State>, isDone: boolean, error: Error | null) {
      if (!settle(peer)) return; // it was refused meanwhile
      const isTrusted = tls.clientCa === undefined || peer.authorized;
      if (isDone && isTrusted) {
        socket.open(peer);
        return;
      }
      tell(peer, error?.message ?? "its certificate is not trusted");
      // Bun ends it now, in a way that tells the peer; in any case it is over soon.
      waiting.set(
        peer,
        setTimeout(() => peer.terminate(), LINGER_MS),
      );
    },
    close(peer: Socket<State>) {
      settle(peer);
      socket.close(peer);
    },
  };
}

function tlsOptions({ cert, key, clientCa }: ServerTls): Bun.TLSOptions {
  if (clientCa === undefined) return { cert, key };
  return { cert, key, ca: clientCa, requestCert: true, rejectUnauthorized: true };
}

function listenUnix(path: string, socket: Callbacks): Listener {
  // Bound under another name and moved into place, so that the path never leads nowhere.
  const temporary = `${path}.${process.pid % 1000}`;
  const bound = socketPathFault(temporary) === undefined ? temporary : path;
  rmSync(bound, { force: true }); // left over from a daemon that was killed
  // Of the whole process: a folder that another thread makes right now must stay the owner's to use.
  const umask = process.umask(0o077);
  let listener: UnixSocketListener<State>;
  try {
    listener = Bun.listen<State>({ unix: bound, allowHalfOpen: true, socket });
  } finally {
    process.umask(umask);
  }
  chmodSync(bound, 0o600);
  if (bound !== path) renameSync(bound, path);
  const own = lstatSync(path);
  return {
    address: { kind: "unix", path },
    stop: () => {
      // `listener.stop()` unlinks the name it was bound to; the one in place is ours to remove.
      removeSocketFile(path, own);
      listener.stop();
    },
  };
}

function removeSocketFile(path: string, own: { dev: number; ino: number }): void {
  try {
    const found = lstatSync(path);
    if (found.dev === own.dev && found.ino === own.ino) unlinkSync(path);
  } catch (error) {
    if (systemCode(error) !== "ENOENT") throw error;
  }
}

/**
 * Connects to an address within `timeoutMs`.
 * @throws `unreachable`, `permission_denied` or `timed_out`, naming the address
 */
export async function connect(
  address: Address,
  accept: Accept,
  onFault: OnFault,
  timeoutMs: number = CONNECT_TIMEOUT_MS,
): Promise<Connection> {
  const name = formatAddress(address);
  let connection: Connection | undefined;
  let isLate = false;
  const socket = callbacks((opened) => {
    connection = wrap(opened, name);
    if (isLate) {
      connection.close();
      return DISCARD;
    }
    return accept(connection);
  }, onFault);
  let timer: ReturnType<typeof setTimeout> | undefined;
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      isLate = true;
      reject(
        new OrchestratorError(
          "timed_out",
          `Cannot connect to ${name}: no answer within ${timeoutMs} ms`,
        ),
      );
    }, timeoutMs);
  });
  try {
    const options = { allowHalfOpen: true, socket: { ...socket, connectError() {} } };
    const opening =
      address.kind === "unix"
        ? Bun.connect<State>({ ...options, unix: address.path })
        : Bun.connect<State>({ ...options, hostname: address.host, port: address.port });
    await Promise.race([opening, timeout]);
  } catch (error) {
    if (error instanceof OrchestratorError) throw error;
    const code = systemCode(error);
    throw new OrchestratorError(
      code === "EACCES" || code === "EPERM" ? "permission_denied" : "unreachable",
      `Cannot connect to ${name}`,
      { cause: error },
    );
  } finally {
    clearTimeout(timer);
  }
  return connection as unknown as Connection;
}
