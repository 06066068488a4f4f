// A control client: sends whole requests in one of both dialects, cut anywhere by its wire, and finds the
// answers in what the daemon's kernel took.

import { decodeResponse, type Response } from "../../src/protocol.ts";
import type { Random } from "../support/random.ts";
import type { Ask, Asks } from "./asks.ts";
import type { Wire } from "./wire.ts";

export interface ClientOptions {
  readonly random: Random;
  readonly asks: Asks;
  /** The daemon has all of a request. */
  delivered(ask: Ask): void;
  /** It has answered one; `isMore` says whether another answer to it is due. */
  answered(ask: Ask, response: Response): void;
  demand(isSo: boolean, what: string, found?: unknown): void;
}

interface SentAsk {
  readonly ask: Ask;
  /** Of the request, in the bytes of the connection. */
  readonly end: number;
}

export class Client {
  readonly #options: ClientOptions;
  readonly dialect: "native" | "veecle";
  wire: Wire | undefined;
  /** It may be turned away: descriptors are scarce, or it says nothing. */
  isTurnedAway = false;
  #sent: SentAsk[] = [];
  #sentBytes = 0;
  #hasAsked = false;
  /** Something it asked for was answered. */
  #isServed = false;
  #isDone = false;
  #isVoid = false;
  #bytes: Buffer = Buffer.alloc(0);
  #stream: Ask | undefined;
  /** What came as items of a stream. */
  readonly items: string[] = [];
  /** The last line that was printed while it followed. */
  printed: number | undefined;

  constructor(options: ClientOptions) {
    this.#options = options;
    this.dialect = options.random.pick(["native", "veecle"]);
  }

  /** Nothing more can be asked. */
  get isDone(): boolean {
    return this.#isDone;
  }

  /** It has asked for something, and is not sent away any more. */
  get hasAsked(): boolean {
    return this.#hasAsked;
  }

  get stream(): Ask | undefined {
    return this.#stream;
  }

  /** Requests that the daemon has and has not answered. */
  get unanswered(): Ask[] {
    return this.#sent.flatMap(({ ask }) => (ask.since === undefined ? [] : [ask]));
  }

  ask(count: number, mayEnd: boolean): void {
    const { random, asks } = this.#options;
    const parts: Buffer[] = [];
    let isLast = false;
    for (let i = 0; i < count && !this.#isDone; i++) {
      const ask = asks.some(mayEnd && i === count - 1);
      this.#isDone = ask.isLast;
      // A last line may lack its newline.
      const isOpen = mayEnd && i === count - 1 && ask.raw === undefined && random.chance(0.3);
      parts.push(this.#encode(ask, isOpen));
      isLast ||= isOpen;
    }
    this.wire?.send(Buffer.concat(parts));
    if (isLast) this.leave();
  }

  /** Sends what is given. */
  send(asks: readonly Ask[]): void {
    this.#isDone ||= asks.some(({ isLast }) => isLast);
    this.wire?.send(Buffer.concat(asks.map((ask) => this.#encode(ask, false))));
  }

  /** The daemon would not have it from the beginning: what it says goes nowhere. */
  turnedAway(): void {
    this.#options.demand(this.isTurnedAway, "a client is served");
    this.#isDone = true;
    this.#isVoid = true;
  }

  /** Sends no more, and still reads. */
  leave(): void {
    this.#isDone = true;
    this.wire?.end();
  }

  /** So many bytes in all are about to reach the daemon. */
  delivering(bytes: number): void {
    if (this.#isVoid) return;
    for (const { ask, end } of this.#sent) {
      if (end > bytes) return;
      this.#hasAsked = true;
      if (ask.since === undefined) this.#options.delivered(ask);
    }
  }

  /** The kernel took bytes for it. */
  take(bytes: Buffer): void {
    const all = this.#bytes.length === 0 ? bytes : Buffer.concat([this.#bytes, bytes]);
    let at = 0;
    while (at < all.length) {
      const isFrame = all[at] === 0;
      if (isFrame && all.length - at < 4) break;
      const start = isFrame ? at + 4 : at;
      const end = isFrame ? start + all.readUInt32BE(at) : all.indexOf(0x0a, at);
      if (end < 0 || end > all.length) break;
      this.#item(all.toString("utf8", start, end), isFrame ? "native" : "veecle");
      at = isFrame ? end : end + 1;
    }
    this.#bytes = all.subarray(at);
  }

  /** The connection is gone, by the daemon's doing. */
  ended(): void {
    const { demand } = this.#options;
    // Turned away when it was known who it is: the kernel may not have taken what it was told.
    const isUnserved = this.isTurnedAway && !this.#isServed;
    const [left] = isUnserved ? [] : this.unanswered;
    demand(left === undefined, "every request is answered before the end", left?.text);
    const isExpected = this.#isDone || this.isTurnedAway || !this.#hasAsked;
    demand(isExpected, "a connection lasts as long as its client wants");
  }

  #encode(ask: Ask, isOpen: boolean): Buffer {
    const { random } = this.#options;
    const isNative = this.dialect === "native";
    const body = Buffer.from(ask.text);
    const end = isOpen ? "" : "\n";
    const head = isNative ? framed(body) : Buffer.concat([body, Buffer.from(end)]);
    const raw = ask.raw ?? Buffer.alloc(0);
    const pieces = raw.length === 0 ? [] : random.cut(raw);
    const rest = isNative ? pieces.map(framed) : [raw];
    const bytes = Buffer.concat([head, ...rest]);
    const isWhole = isNative || !isOpen;
    this.#sent.push({ ask, end: isWhole ? this.#sentBytes + head.length : Number.MAX_VALUE });
    this.#sentBytes += bytes.length;
    return bytes;
  }

  #item(text: string, dialect: string): void {
    const { demand, answered } = this.#options;
    if (this.#stream !== undefined) {
      demand(dialect === this.dialect, `items come in ${this.dialect}`, text);
      this.items.push(text);
      return;
    }
    let response: Response;
    try {
      response = decodeResponse(text);
    } catch (error) {
      demand(false, "an answer is one", `${error}: ${text}`);
      return;
    }
    const [first] = this.#sent;
    const isTold = "Err" in response && response.Err[0]?.startsWith("Cannot accept connection");
    if (isTold === true && this.isTurnedAway && !this.#isServed) {
      // Whatever it has sent, or sends on, goes nowhere.
      this.#isDone = this.#isVoid = true;
      this.#sent = [];
      return;
    }
    if (first?.ask.since === undefined) {
      demand(false, "only what was asked is answered", text);
      return;
    }
    demand(dialect === this.dialect, `${first.ask.kind} is answered in ${this.dialect}`, text);
    this.#isServed = true;
    const { ask } = first;
    ask.due--;
    // An upload that is refused as a whole has a second answer all the same.
    if (ask.due === 0) this.#sent.shift();
    if ("Err" in response && response.Err[0]?.includes("the upload ended") === true) {
      this.#isDone = true;
      this.#sent = [];
    }
    if (ask.isLast && "Ok" in response) this.#stream = ask;
    if (ask.isLast) this.#sent = []; // and nothing more is answered
    answered(ask, response);
  }
}

function framed(body: Buffer): Buffer {
  const head = Buffer.alloc(4);
  head.writeUInt32BE(body.length);
  return Buffer.concat([head, body]);
}
