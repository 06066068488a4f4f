// A control socket that answers as a test tells it to, in the native dialect.
//
// Owns the listening socket and its folder. Knows frames, not requests: the test decides what every
// body means, so that it can also stay silent, answer garbage, or hang up at any byte.

import { rmSync } from "node:fs";
import { join } from "node:path";

import { encodeFrame, FrameScanner, PREFIX_BYTES } from "../../src/frame.ts";
import { scratch } from "./scratch.ts";

type Socket = Bun.Socket<undefined>;

/** One accepted connection. */
export class FakeConnection {
  readonly socket: Socket;
  /** Bodies that have arrived, in order. */
  readonly bodies: Buffer[] = [];
  readonly #unsent: Buffer[] = [];
  #ending = false;

  constructor(socket: Socket) {
    this.socket = socket;
  }

  ok(value: unknown): void {
    this.frame(JSON.stringify({ Ok: value }));
  }

  refuse(code: string, ...chain: string[]): void {
    this.frame(JSON.stringify({ Err: chain, code }));
  }

  frame(body: string | Uint8Array): void {
    this.raw(encodeFrame(body));
  }

  raw(bytes: Uint8Array): void {
    this.#unsent.push(Buffer.from(bytes));
    this.flush();
  }

  /** Ends the connection when everything has been sent. */
  end(): void {
    this.#ending = true;
    this.flush();
  }

  flush(): void {
    for (let next = this.#unsent[0]; next !== undefined; next = this.#unsent[0]) {
      const written = Math.max(0, this.socket.write(next));
      if (written < next.length) {
        this.#unsent[0] = next.subarray(written);
        return;
      }
      this.#unsent.shift();
    }
    if (this.#ending) this.socket.end();
  }
}

export class FakeDaemon implements Disposable {
  readonly folder: string;
  readonly path: string;
  readonly connections: FakeConnection[] = [];
  /** Resolves when a connection has been closed. */
  readonly closed: Promise<void>;
  readonly #listener: Bun.UnixSocketListener<undefined>;

  /** `answer` is called with every body that arrives. */
  constructor(answer: (body: Buffer, connection: FakeConnection) => void) {
    this.folder = scratch("fake-daemon-");
    this.path = join(this.folder, "control.socket");
    const closed = Promise.withResolvers<void>();
    this.closed = closed.promise;
    const states = new Map<Socket, { connection: FakeConnection; scanner: FrameScanner }>();
    this.#listener = Bun.listen<undefined>({
      unix: this.path,
      socket: {
        open: (socket) => {
          const connection = new FakeConnection(socket);
          this.connections.push(connection);
          const scanner = new FrameScanner(0, 2 ** 24 - 1, (chunk, _view, start, end) => {
            const body = chunk.subarray(start + PREFIX_BYTES, end);
            connection.bodies.push(body);
            answer(body, connection);
          });
          states.set(socket, { connection, scanner });
        },
        data: (socket, chunk) => {
          try {
            states.get(socket)?.scanner.push(chunk);
          } catch {
            socket.end(); // a line: somebody asks whether we are the existing orchestrator
          }
        },
        drain: (socket) => states.get(socket)?.connection.flush(),
        close: () => closed.resolve(),
      },
    });
  }

  [Symbol.dispose](): void {
    this.#listener.stop(true);
    rmSync(this.folder, { recursive: true });
  }
}
