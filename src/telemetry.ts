// The telemetry exporter: lines of instances → one TCP connection to the telemetry server.
//
// Lines are copied into blocks that go out whole. When the server is slow or away, the oldest
// block is dropped and its lines are counted: a message never waits for telemetry. A connection
// never begins in the middle of a line; the line that a lost connection cut is sent again.

import { formatAddress, type TcpAddress } from "./address.ts";
import { messageChain } from "./errors.ts";
import {
  GATHER_BLOCK_BYTES,
  MAX_TELEMETRY_BYTES,
  RECONNECT_MAX_MS,
  RECONNECT_MIN_MS,
} from "./limits.ts";
import { NEWLINE } from "./lines.ts";
import type { TargetLog } from "./log.ts";
import { type Connection, DISCARD, type StreamHandlers } from "./socket.ts";

interface Block {
  readonly bytes: Buffer;
  filled: number;
  lines: number;
}

/** Opens a connection to an address. */
export type Connect = (
  address: TcpAddress,
  accept: (connection: Connection) => StreamHandlers,
) => Promise<unknown>;

/** Sends telemetry lines; owns those that are not sent yet. */
export class TelemetryExporter {
  readonly #address: TcpAddress;
  readonly #connect: Connect;
  readonly #after: (ms: number, action: () => void) => () => void;
  readonly #log: TargetLog;
  #connection: Connection | undefined;
  #isConnecting = false;
  #isFull = false;
  #isClosed = false;
  #retryMs = RECONNECT_MIN_MS;
  #cancelRetry: () => void = () => {};
  #blocks: Block[] = [];
  #spare: Block | undefined;
  /** How much of the first block is sent. */
  #sentBytes = 0;
  #queuedBytes = 0;
  #queuedLines = 0;
  #onEmpty: (() => void) | undefined;
  /** Lines that the kernel took whole, and lines that were dropped. */
  sent = 0;
  dropped = 0;

  constructor(options: {
    address: TcpAddress;
    connect: Connect;
    after: (ms: number, action: () => void) => () => void;
    log: TargetLog;
  }) {
    this.#address = options.address;
    this.#connect = options.connect;
    this.#after = options.after;
    this.#log = options.log;
  }

  get queued(): number {
    return this.#queuedLines;
  }

  /** Takes the JSON value in `chunk[start, end)`, which holds no newline. The bytes are copied. */
  push(chunk: Buffer, start: number, end: number): void {
    const length = end - start + 1;
    let block = this.#blocks.at(-1);
    if (block === undefined || block.filled + length > block.bytes.length) {
      this.flush(); // the block that is sent is the next one to be filled
      block = this.#addBlock(length);
    }
    block.filled += chunk.copy(block.bytes, block.filled, start, end);
    block.bytes[block.filled++] = NEWLINE;
    block.lines++;
    this.#queuedBytes += length;
    this.#queuedLines++;
  }

  /** Sends what there is, or sees to it that a connection is made. Called at the end of each chunk too. */
  flush(): void {
    if (this.#queuedLines === 0 || this.#isFull) return;
    if (this.#connection === undefined) this.#open();
    else this.#write(this.#connection);
  }

  /** Ends when everything is sent, or when `timeoutMs` are over; takes nothing afterwards. */
  async close(timeoutMs: number): Promise<void> {
    if (this.#queuedLines > 0) {
      const done = Promise.withResolvers<void>();
      this.#onEmpty = done.resolve;
      const cancel = this.#after(timeoutMs, done.resolve);
      this.flush();
      await done.promise;
      cancel();
    }
    this.#isClosed = true;
    this.#cancelRetry();
    this.#connection?.finish();
    if (this.#queuedLines === 0) return;
    this.#log.warn("run", "telemetry was not sent before the end", { lines: this.#queuedLines });
  }

  #addBlock(length: number): Block {
    while (this.#blocks.length > 1 && this.#queuedBytes + length > MAX_TELEMETRY_BYTES) {
      // The first block may be cut in the middle of a line; the one behind it is the oldest whole one.
      const isCut = this.#sentBytes > 0;
      const at = isCut && this.#blocks.length > 2 ? 1 : 0;
      const [oldest] = this.#blocks.splice(at, 1) as [Block];
      if (!isCut || this.#blocks.length < 2) this.#sentBytes = 0;
      this.dropped += oldest.lines;
      this.#empty(oldest);
    }
    const spare = this.#spare;
    this.#spare = undefined;
    const block =
      spare !== undefined && length <= spare.bytes.length
        ? spare
        : {
            bytes: Buffer.allocUnsafeSlow(Math.max(length, GATHER_BLOCK_BYTES)),
            filled: 0,
            lines: 0,
          };
    this.#blocks.push(block);
    return block;
  }

  #write(connection: Connection): void {
    for (let block = this.#blocks[0]; block !== undefined; block = this.#blocks[0]) {
      const bytes = block.bytes.subarray(this.#sentBytes, block.filled);
      const taken = connection.write(bytes);
      this.#sentBytes += taken;
      if (taken < bytes.length) {
        this.#isFull = true;
        return;
      }
      this.#blocks.shift();
      this.#sentBytes = 0;
      this.sent += block.lines;
      this.#empty(block);
    }
    this.#onEmpty?.();
  }

  /** A block is not queued any more, and is the next one to be filled: none is left to the collector. */
  #empty(block: Block): void {
    this.#queuedBytes -= block.filled;
    this.#queuedLines -= block.lines;
    block.filled = 0;
    block.lines = 0;
    if (block.bytes.length === GATHER_BLOCK_BYTES) this.#spare = block;
  }

  #open(): void {
    if (this.#isConnecting || this.#isClosed) return;
    this.#isConnecting = true;
    this.#connect(this.#address, (connection) => this.#opened(connection)).catch((error) => {
      if (this.#isClosed) return;
      this.#log.warn("run", "cannot reach the telemetry server, will try again", {
        address: formatAddress(this.#address),
        error: messageChain(error).join(": "),
        retry_ms: this.#retryMs,
      });
      this.#retry();
    });
  }

  #opened(connection: Connection): StreamHandlers {
    if (this.#isClosed) {
      connection.close(); // it was under way when the time was over
      return DISCARD;
    }
    this.#log.info("run", "connected to the telemetry server", {
      address: formatAddress(this.#address),
    });
    this.#connection = connection;
    this.#isConnecting = false;
    this.#isFull = false;
    // Whoever closes every connection, as a relay to nobody does, is not asked ten times a second.
    this.#cancelRetry = this.#after(RECONNECT_MAX_MS, () => (this.#retryMs = RECONNECT_MIN_MS));
    this.#write(connection);
    return {
      data: () => {}, // nothing comes back
      drain: () => {
        this.#isFull = false;
        this.flush();
      },
      end: () => connection.close(),
      close: () => this.#lost(),
    };
  }

  #lost(): void {
    this.#connection = undefined;
    this.#isFull = false;
    const block = this.#blocks[0];
    if (block !== undefined && this.#sentBytes > 0) {
      // Back to the beginning of the line that was cut.
      this.#sentBytes = block.bytes.lastIndexOf(NEWLINE, this.#sentBytes - 1) + 1;
    }
    this.#cancelRetry();
    if (this.#isClosed) return;
    this.#log.warn("run", "lost the telemetry server", { address: formatAddress(this.#address) });
    this.#isConnecting = true;
    this.#retry();
  }

  #retry(): void {
    if (this.#isClosed) return;
    this.#cancelRetry = this.#after(this.#retryMs, () => {
      this.#isConnecting = false;
      this.flush();
    });
    this.#retryMs = Math.min(this.#retryMs * 2, RECONNECT_MAX_MS);
  }
}
