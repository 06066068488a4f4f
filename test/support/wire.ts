// Raw bytes to and from a daemon: what a test sends is what travels, valid or not.
//
// A `Wire` is one stream connection with reads that have a deadline. Encoders and decoders here are
// written from `docs/protocol.md` and share nothing with `src/`, so that both can be wrong only alone.

export type Dialect = "veecle" | "native";

export const DIALECTS: readonly Dialect[] = ["veecle", "native"];

/** Far beyond what a healthy daemon needs on a busy machine, and below a test's own time limit. */
const DEADLINE_MS = 20_000;

/** Calls `probe` until it returns something else than undefined or false; fails after `withinMs`. */
export async function until<T>(
  what: string | (() => string),
  probe: () => T | undefined | false | Promise<T | undefined | false>,
  withinMs: number = DEADLINE_MS,
): Promise<T> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    const found = await probe();
    if (found !== undefined && found !== false) return found;
    if (performance.now() > deadline) {
      const text = typeof what === "string" ? what : what();
      throw new Error(`Expected within ${withinMs} ms: ${text}`);
    }
    await Bun.sleep(2);
  }
}

/** The promise's value, or a failure that names what was waited for. */
export async function within<T>(
  what: string,
  promise: Promise<T>,
  withinMs: number = DEADLINE_MS,
): Promise<T> {
  const error = new Error(`Expected within ${withinMs} ms: ${what}`); // here, for its stack
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(error), withinMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

type Socket = Bun.Socket<{ wire: Wire }>;

/** One stream connection. */
export class Wire {
  readonly #socket: Socket;
  #received: Buffer = Buffer.alloc(0);
  #chunks: Buffer[] = [];
  #unsent: Buffer[] = [];
  #isFinishing = false;
  #isEnded = false;
  #changed: PromiseWithResolvers<void> = Promise.withResolvers();

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** Connects to a Unix path or `host:port`. */
  static async connect(address: string): Promise<Wire> {
    const options = { socket: wireHandlers(() => {}), allowHalfOpen: true };
    const colon = address.lastIndexOf(":");
    const socket: Socket = address.includes("/")
      ? await Bun.connect<{ wire: Wire }>({ ...options, unix: address })
      : await Bun.connect<{ wire: Wire }>({
          ...options,
          hostname: address.slice(0, colon).replace(/^\[|\]$/g, ""),
          port: Number(address.slice(colon + 1)),
        });
    return socket.data.wire;
  }

  /** Whether the peer has ended its side. */
  get isEnded(): boolean {
    return this.#isEnded;
  }

  /** Bytes that were given to `send` and that the kernel has not taken. */
  get unsentBytes(): number {
    return this.#unsent.reduce((sum, bytes) => sum + bytes.length, 0);
  }

  /** Bytes that have arrived and were not read. */
  get unreadBytes(): number {
    return this.#chunks.reduce((sum, chunk) => sum + chunk.length, this.#received.length);
  }

  send(bytes: string | Uint8Array): void {
    this.#unsent.push(Buffer.from(bytes as Uint8Array));
    if (this.#unsent.length === 1) this.flush();
  }

  /** Settles when the kernel has taken everything. */
  async sent(withinMs: number = DEADLINE_MS): Promise<void> {
    await until("everything is sent", () => this.#unsent.length === 0, withinMs);
  }

  /** The next line, without its newline. */
  async line(withinMs: number = DEADLINE_MS): Promise<string> {
    let searched = 0;
    for (;;) {
      const newline = this.#join().indexOf(0x0a, searched);
      if (newline >= 0) return this.#take(newline + 1).toString("utf8", 0, newline);
      searched = this.#received.length;
      await this.#more("a line", withinMs);
    }
  }

  /** The next size-prefixed frame, without its prefix. */
  async frame(withinMs: number = DEADLINE_MS): Promise<Buffer> {
    const size = (await this.bytes(4, withinMs)).readUInt32BE();
    return this.bytes(size, withinMs);
  }

  /** The next `count` bytes. */
  async bytes(count: number, withinMs: number = DEADLINE_MS): Promise<Buffer> {
    while (this.#join().length < count) await this.#more(`${count} bytes`, withinMs);
    return this.#take(count);
  }

  /** Waits for the peer's end and returns what came before it. */
  async rest(withinMs: number = DEADLINE_MS): Promise<Buffer> {
    while (!this.#isEnded) {
      this.#join();
      await this.#more("the end", withinMs);
    }
    return this.#take(this.#join().length);
  }

  /** Sends no more, after what is still unsent; goes on reading. */
  finish(): void {
    this.#isFinishing = true;
    this.flush();
  }

  /** Ends both directions now. */
  close(): void {
    this.#socket.terminate();
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  flush(): void {
    let bytes: Buffer | undefined;
    while ((bytes = this.#unsent[0]) !== undefined) {
      const taken = Math.max(0, this.#socket.write(bytes));
      if (taken < bytes.length) {
        this.#unsent[0] = bytes.subarray(taken);
        return;
      }
      this.#unsent.shift();
    }
    if (this.#isFinishing) this.#socket.shutdown();
  }

  receive(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#notify();
  }

  end(): void {
    this.#isEnded = true;
    this.#notify();
  }

  #notify(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }

  async #more(what: string, withinMs: number): Promise<void> {
    const has = `${what} (there are ${this.#received.length} bytes: ${excerpt(this.#received)})`;
    if (this.#isEnded) throw new Error(`Expected ${has}, and the connection ended`);
    if (this.#chunks.length === 0) await within(has, this.#changed.promise, withinMs);
  }

  #join(): Buffer {
    if (this.#chunks.length > 0) {
      this.#received = Buffer.concat([this.#received, ...this.#chunks]);
      this.#chunks = [];
    }
    return this.#received;
  }

  #take(count: number): Buffer {
    const taken = this.#join().subarray(0, count);
    this.#received = this.#received.subarray(count);
    return taken;
  }
}

/** What Bun calls for sockets that are wires; `onOpen` gets each new one. */
export function wireHandlers(
  onOpen: (wire: Wire) => void,
): Bun.SocketHandler<{ wire: Wire }, "buffer"> {
  return {
    open(socket) {
      socket.data = { wire: new Wire(socket) };
      onOpen(socket.data.wire);
    },
    data: (socket, chunk) => socket.data.wire.receive(chunk),
    drain: (socket) => socket.data.wire.flush(),
    end: (socket) => socket.data.wire.end(),
    close: (socket) => socket.data?.wire.end(),
    error() {},
  };
}

function excerpt(bytes: Buffer): string {
  return JSON.stringify(bytes.toString("latin1", 0, 200));
}

/** A size-prefixed frame. */
export function frame(body: string | Uint8Array): Buffer {
  const bytes = Buffer.from(body as Uint8Array);
  const prefix = Buffer.alloc(4);
  prefix.writeUInt32BE(bytes.length);
  return Buffer.concat([prefix, bytes]);
}

/** One JSON value as a control request or response of a dialect. */
export function encode(dialect: Dialect, value: unknown): Buffer {
  const json = JSON.stringify(value);
  return dialect === "native" ? frame(json) : Buffer.from(`${json}\n`);
}

/** A Veecle line with a message. */
export function storable(typeName: string, value: string): string {
  return `${JSON.stringify({ Storable: { type_name: typeName, value } })}\n`;
}

export const KIND = {
  data: 1,
  hello: 2,
  request: 3,
  response: 4,
  telemetry: 5,
  notice: 6,
} as const;

/** A native frame on an instance socket. */
export function native(kind: number, typeName: string, payload: string | Uint8Array): Buffer {
  const name = Buffer.from(typeName);
  const header = Buffer.from([kind, 0, name.length >> 8, name.length & 0xff]);
  return frame(Buffer.concat([header, name, Buffer.from(payload as Uint8Array)]));
}

/** A message in either dialect. */
export function message(dialect: Dialect, typeName: string, payload: string): Buffer {
  return dialect === "native"
    ? native(KIND.data, typeName, payload)
    : Buffer.from(storable(typeName, payload));
}

/** A native frame, taken apart. */
export async function nextFrame(
  wire: Wire,
): Promise<{ kind: number; typeName: string; payload: Buffer }> {
  const body = await wire.frame();
  const end = 4 + body.readUInt16BE(2);
  return {
    kind: body[0] as number,
    typeName: body.toString("utf8", 4, end),
    payload: body.subarray(end),
  };
}

/** The next message on an instance's wire; notices in between are passed over. */
export async function nextMessage(
  dialect: Dialect,
  wire: Wire,
): Promise<{ typeName: string; payload: string }> {
  if (dialect === "veecle") {
    const { Storable } = JSON.parse(await wire.line());
    return { typeName: Storable.type_name, payload: Storable.value };
  }
  for (;;) {
    const { kind, typeName, payload } = await nextFrame(wire);
    if (kind === KIND.data) return { typeName, payload: payload.toString() };
    if (kind !== KIND.notice) throw new Error(`Expected a message, not a frame of kind ${kind}`);
  }
}

/** What a control socket answers. */
export interface Answer {
  readonly Ok?: unknown;
  readonly Err?: readonly string[];
  readonly code?: string;
}

/** A control connection in one of the dialects. */
export class Control {
  readonly wire: Wire;
  readonly dialect: Dialect;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(wire: Wire, dialect: Dialect) {
    this.wire = wire;
    this.dialect = dialect;
  }

  send(request: unknown): void {
    this.wire.send(encode(this.dialect, request));
  }

  /** The next answer, as it came. */
  async answerText(withinMs?: number): Promise<string> {
    if (this.dialect === "veecle") return this.wire.line(withinMs);
    return (await this.wire.frame(withinMs)).toString();
  }

  async answer(withinMs?: number): Promise<Answer> {
    return JSON.parse(await this.answerText(withinMs));
  }

  /** The answer to a request; the next one is sent after it. */
  ask(request: unknown, withinMs?: number): Promise<Answer> {
    const answer = this.#turn.then(() => {
      this.send(request);
      return this.answer(withinMs);
    });
    this.#turn = answer.catch(() => {});
    return answer;
  }

  /** The value of a success; fails if the request is refused. */
  async ok(request: unknown, withinMs?: number): Promise<unknown> {
    const answer = await this.ask(request, withinMs);
    if (!("Ok" in answer)) {
      throw new Error(`${JSON.stringify(request)} was refused: ${JSON.stringify(answer)}`);
    }
    return answer.Ok;
  }

  /** The next line of a stream. */
  item(withinMs?: number): Promise<string> {
    return this.answerText(withinMs);
  }
}
