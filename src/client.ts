// The other end of the control socket, in the native dialect: for the CLI, tests and other programs.
//
// Owns one connection: its unsent bytes, the answers that are outstanding, their deadlines. Requests
// are answered in order; a deadline that passes or bytes that make no sense end the connection, since
// no later answer could be told from an earlier one.

import { type Address, parseAddress } from "./address.ts";
import { OrchestratorError, systemCode } from "./errors.ts";
import { Follow, Items } from "./client/follow.ts";
import { encodeFrame, FrameScanner, PREFIX_BYTES } from "./frame.ts";
import {
  ANSWER_TIMEOUT_MS,
  CONNECT_TIMEOUT_MS,
  KEEP_ALIVE_MS,
  KILL_WAIT_MS,
  MAX_NATIVE_FRAME_BYTES,
  MAX_STOP_GRACE_MS,
  UPLOAD_CHUNK_BYTES,
  UPLOAD_IDLE_MS,
} from "./limits.ts";
import { type EventInfo, isEventInfo, isLineInfo, type LineInfo } from "./protocol/info.ts";
import type { InstanceId } from "./model.ts";
import {
  decodeResponse,
  encodeRequest,
  type EventQuery,
  type HistoryQuery,
  type OutputQuery,
  type Request,
} from "./protocol.ts";
import type { InstanceSettings } from "./settings.ts";
import { speaksLinesOnly } from "./client/stranger.ts";
import {
  incomprehensible,
  linesOnly,
  refused,
  silent,
  unreachable,
  untrusted,
} from "./client/unanswered.ts";
import { changed, digest, pieces, unreadable } from "./client/upload.ts";

/** How long a client waits. */
export interface Deadlines {
  readonly connectMs: number;
  /** To an answer; also how long a daemon may answer nobody while a longer request is in work. */
  readonly answerMs: number;
  /** To the answer of a request that ends processes, if nothing is known of their graces. */
  readonly stopMs: number;
  /** While nothing of an upload moves: a daemon that writes to a slow disk may be silent. */
  readonly uploadIdleMs: number;
}

export const DEADLINES: Deadlines = {
  connectMs: CONNECT_TIMEOUT_MS,
  answerMs: ANSWER_TIMEOUT_MS,
  stopMs: stopDeadline(MAX_STOP_GRACE_MS),
  uploadIdleMs: UPLOAD_IDLE_MS,
};

/** To the answer of a stop of instances whose longest grace is known. */
export function stopDeadline(graceMs: number): number {
  return graceMs + KILL_WAIT_MS + ANSWER_TIMEOUT_MS;
}

/**
 * Where a daemon listens, and a client looks for it, if neither is told otherwise: in the user's
 * runtime folder, else in a folder of the user's own below the temporary one.
 * @throws `misuse` if that path is too long for a socket
 */
export function defaultControlAddress(env: Readonly<Record<string, string | undefined>>): Address {
  const runtimeFolder = env["XDG_RUNTIME_DIR"];
  const folder = runtimeFolder?.startsWith("/") ? runtimeFolder : temporaryFolder(env["TMPDIR"]);
  return parseAddress(`${folder}/veecle-orchestrator.socket`.replaceAll(/\/{2,}/g, "/"));
}

/** The folder of the user's own below the temporary one. */
export function temporaryFolder(base: string | undefined): string {
  const user = process.getuid?.() ?? 0;
  return `${base || "/tmp"}/veecle-orchestrator-${user}`.replaceAll(/\/{2,}/g, "/");
}

/** What a client shows to a daemon on another machine, and what it wants to see. */
export interface Identity {
  readonly token?: string | undefined;
  /** Over TCP: who must have signed the daemon's certificate, and a certificate of our own; PEM. */
  readonly tls?: { readonly ca: string; readonly cert?: string; readonly key?: string } | undefined;
}

/** After this silence to the first request it is found out whether who listens knows this dialect. */
const STRANGER_MS = 400;

/** The first byte of what a TLS server says to whom it does not understand. */
const TLS_ALERT = 0x15;

/** A query for all that there is. */
const ALL: HistoryQuery = {
  ids: undefined,
  last: undefined,
  since: undefined,
  until: undefined,
  follow: false,
};

/** An answer that is outstanding. */
interface Waiting {
  readonly deadlineMs: number;
  /** It may take longer than a daemon is silent to everybody. */
  readonly isLong: boolean;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
  /** A second answer to the same request, which comes if the first one is a success. */
  readonly second?: Waiting | undefined;
}

/**
 * Calls back when the time is over and what came meanwhile has been read; the returned function
 * cancels. If this process was held up itself, its timers come before the bytes that waited for it.
 */
function afterSilence(ms: number, action: () => void): () => void {
  let timer = setTimeout(() => {
    timer = setTimeout(action, 0);
  }, ms);
  return () => clearTimeout(timer);
}

/** One connection to a daemon. */
export class ControlClient {
  readonly address: Address;
  readonly #deadlines: Deadlines;
  readonly #identity: Identity;
  readonly #waiting: Waiting[] = [];
  readonly #unsent: Buffer[] = [];
  readonly #scanner = new FrameScanner(0, MAX_NATIVE_FRAME_BYTES, (chunk, _view, start, end) =>
    this.#take(chunk.subarray(start + PREFIX_BYTES, end)),
  );
  #socket: Bun.Socket<undefined> | undefined;
  #cancelTimer: () => void = () => {};
  #drained: PromiseWithResolvers<void> | undefined;
  #follow: Follow | undefined;
  #received = false;
  #isIdentified = false;
  /** Why this connection can no longer be used. */
  #ended: OrchestratorError | undefined;

  private constructor(address: Address, deadlines: Deadlines, identity: Identity) {
    this.address = address;
    this.#identity = identity;
    this.#deadlines = deadlines;
  }

  /**
   * Connects to the daemon at `address`, and shows it what is given.
   * @throws `unreachable` if nobody listens there, `timed_out`, `permission_denied`
   */
  static async connect(
    address: Address,
    deadlines: Partial<Deadlines> = {},
    identity: Identity = {},
  ): Promise<ControlClient> {
    const client = new ControlClient(address, { ...DEADLINES, ...deadlines }, identity);
    await client.#open();
    const { token } = identity;
    if (token !== undefined) await client.request({ kind: "Token", token });
    return client;
  }

  /**
   * Sends a request and returns the value of its answer, which is waited for `withinMs` at most.
   * Several may be under way.
   * @throws with the daemon's code and chain of causes; `unreachable` or `timed_out` if none came
   */
  request(request: Request, withinMs?: number): Promise<unknown> {
    const isLong = request.kind === "Stop" || request.kind === "Clear";
    const { stopMs, answerMs } = this.#deadlines;
    const answer = this.#expect(awaited(withinMs ?? (isLong ? stopMs : answerMs), isLong));
    this.#send(encodeFrame(encodeRequest(request)));
    return answer;
  }

  /**
   * Registers an instance with a copy of a regular file (a path, or `Bun.file`), which is streamed;
   * returns its size; with `replace`, gives it to an instance that is there. `onProgress` is called
   * with the bytes sent and the size. After an error in the middle of the transfer the connection is
   * closed.
   * @throws like `request`; `io` if the file cannot be read, `upload_failed` if it changes meanwhile
   */
  async upload(
    id: InstanceId,
    source: string | Blob,
    settings: Partial<InstanceSettings>,
    onProgress: (sentBytes: number, totalBytes: number) => void = () => {},
    replace: boolean = false,
  ): Promise<number> {
    const file = typeof source === "string" ? Bun.file(source) : source;
    const name = typeof source === "string" ? source : ((source as Bun.BunFile).name ?? "data");
    // Reading a large file may take longer than a daemon waits for the first request.
    if (!this.#received) await this.request({ kind: "Version" });
    const { length, hash } = await digest(file, name);
    let settled = false;
    const stored = awaited(this.#deadlines.uploadIdleMs, false);
    const answer = stored.promise.finally(() => {
      settled = true;
      this.#drained?.resolve();
    });
    answer.catch(() => {}); // awaited below; it may come early
    const accepted = this.#expect(awaited(this.#deadlines.answerMs, false, stored.waiting));
    this.#send(
      encodeFrame(
        encodeRequest({ kind: "AddWithBinary", id, length, hash, path: name, replace, settings }),
      ),
    );
    await accepted;
    let sent = 0;
    try {
      for await (const chunk of pieces(file)) {
        if (settled || sent + chunk.length > length) break;
        this.#send(encodeFrame(chunk));
        await this.#drain();
        this.#arm();
        sent += chunk.length;
        onProgress(sent, length);
      }
    } catch (error) {
      this.#fail(this.#ended ?? unreadable(name, error));
    }
    if (!settled && this.#ended === undefined && sent !== length) this.#fail(changed(name));
    try {
      await answer;
    } catch (error) {
      this.close();
      throw error;
    }
    return length;
  }

  /**
   * Follows the output of an instance until it is removed. This is the last request of a connection.
   * The subscription is made at once: `ready` tells when.
   */
  follow(id: InstanceId): Follow {
    return this.#stream({ kind: "Stdout", id });
  }

  /** What has happened and, if asked for, what happens from now on. The last request of a connection. */
  events(query: Partial<EventQuery> = {}): Items<EventInfo> {
    const request: Request = { kind: "Events", query: { ...ALL, after: undefined, ...query } };
    return new Items(this.#stream(request), isEventInfo, this.address);
  }

  /** What instances have printed and, if asked for, what they print. The last request of a connection. */
  output(query: Partial<OutputQuery> = {}): Items<LineInfo> {
    const request: Request = { kind: "Output", query: { ...ALL, stream: undefined, ...query } };
    return new Items(this.#stream(request), isLineInfo, this.address);
  }

  #stream(request: Request): Follow {
    const follow = new Follow(
      this.request(request).then(() => undefined),
      {
        pause: () => this.#socket?.pause(),
        resume: () => this.#socket?.resume(),
        close: () => this.close(),
      },
    );
    this.#follow = follow;
    return follow;
  }

  /** Ends the connection and what is followed on it; requests without an answer fail. */
  close(): void {
    this.#follow?.end();
    const error = new OrchestratorError("unreachable", "Cannot finish request: connection closed");
    this.#fail(error, () => {
      this.#socket?.end();
      this.#socket?.unref(); // a program need not wait until the daemon has noticed
    });
  }

  async #open(): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const { connectMs } = this.#deadlines;
    const { tls } = this.address.kind === "tcp" ? this.#identity : {};
    const cancel = afterSilence(connectMs, () =>
      reject(silent(this.address, "no connection", connectMs)),
    );
    const socket: Bun.SocketHandler<undefined> = {
      open: (opened) => {
        this.#socket = opened;
        // Who follows a daemon sends nothing: without it, one that has vanished is followed for ever.
        if (this.address.kind === "tcp") opened.setKeepAlive(true, KEEP_ALIVE_MS);
        if (this.#ended !== undefined) opened.terminate();
        if (tls === undefined) resolve();
      },
      handshake: (_socket, isDone, error) => {
        if (tls === undefined) return;
        if (isDone && error === null) resolve();
        else reject(untrusted(this.address, error));
      },
      data: (_socket, chunk) => this.#receive(chunk),
      drain: () => this.#flush(),
      error: (_socket, error) => {
        // A certificate that is asked for and missing is told after the handshake.
        const isRefused = tls !== undefined && systemCode(error) === "EPROTO";
        this.#fail((isRefused ? untrusted : unreachable)(this.address, error));
      },
      close: (_socket, error) => {
        reject(unreachable(this.address, error ?? new Error("the connection was closed")));
        this.#lost(error);
      },
    };
    try {
      const connecting =
        this.address.kind === "unix"
          ? Bun.connect({ unix: this.address.path, socket })
          : Bun.connect({
              hostname: this.address.host,
              port: this.address.port,
              ...(tls === undefined ? {} : { tls: { ...tls, serverName: this.address.host } }),
              socket,
            });
      connecting.catch((error: unknown) => reject(unreachable(this.address, error)));
      await promise;
    } catch (error) {
      const failure = error instanceof OrchestratorError ? error : unreachable(this.address, error);
      this.#fail(failure);
      throw failure;
    } finally {
      cancel();
    }
  }

  #expect({ promise, waiting }: Awaited): Promise<unknown> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    this.#waiting.push(waiting);
    if (this.#waiting.length === 1) this.#arm();
    return promise;
  }

  /** Starts the deadline of the answer that is due next. */
  #arm(leftMs: number | undefined = this.#waiting[0]?.deadlineMs): void {
    this.#cancelTimer();
    const head = this.#waiting[0];
    if (head === undefined || leftMs === undefined) return;
    const { answerMs } = this.#deadlines;
    const cancel =
      leftMs <= answerMs || !head.isLong
        ? afterSilence(leftMs, () => this.#fail(silent(this.address, "no answer", head.deadlineMs)))
        : afterSilence(answerMs / 2, () => void this.#probe(head, leftMs));
    this.#cancelTimer = cancel;
    if (this.#received || this.#isIdentified || this.#identity.tls !== undefined) return;
    if (Math.min(leftMs, answerMs) <= 2 * STRANGER_MS) return;
    this.#isIdentified = true;
    const cancelIdentify = afterSilence(STRANGER_MS, () => void this.#identify(head));
    this.#cancelTimer = () => {
      cancelIdentify();
      cancel();
    };
  }

  /** The existing orchestrator, which knows lines only, would never answer. */
  async #identify(head: Waiting): Promise<void> {
    const isStranger = await speaksLinesOnly(this.address, STRANGER_MS);
    if (isStranger && !this.#received && this.#waiting[0] === head) {
      this.#fail(linesOnly(this.address));
    }
  }

  /** A daemon at work on a long request answers others meanwhile; one that hangs does not. */
  async #probe(head: Waiting, leftMs: number): Promise<void> {
    const halfMs = this.#deadlines.answerMs / 2;
    const startMs = performance.now();
    try {
      const connectMs = Math.min(this.#deadlines.connectMs, halfMs);
      const deadlines = { connectMs, answerMs: halfMs };
      const other = await ControlClient.connect(this.address, deadlines, this.#identity);
      await other.request({ kind: "Version" }).finally(() => other.close());
    } catch (error) {
      const code = error instanceof OrchestratorError ? error.code : "internal";
      if (this.#waiting[0] === head && (code === "timed_out" || code === "unreachable")) {
        this.#fail(error as OrchestratorError);
        return;
      }
    }
    if (this.#waiting[0] !== head) return;
    this.#arm(Math.max(0, leftMs - halfMs - (performance.now() - startMs)));
  }

  #send(bytes: Buffer): void {
    if (this.#ended !== undefined) return;
    this.#unsent.push(bytes);
    if (this.#unsent.length === 1) this.#flush();
  }

  #flush(): void {
    let next: Buffer | undefined;
    while ((next = this.#unsent[0]) !== undefined && this.#socket !== undefined) {
      const written = this.#socket.write(next);
      if (written < next.length) {
        if (written > 0) this.#unsent[0] = next.subarray(written);
        return; // closed (-1): the handler `close` follows; else `drain`
      }
      this.#unsent.shift();
    }
    this.#drained?.resolve();
    this.#drained = undefined;
  }

  /** Waits until the system has taken everything that was sent. */
  async #drain(): Promise<void> {
    if (this.#ended !== undefined) throw this.#ended;
    if (this.#unsent.length === 0) return;
    this.#drained ??= Promise.withResolvers<void>();
    await this.#drained.promise;
  }

  #receive(chunk: Buffer): void {
    if (this.#ended !== undefined) return;
    try {
      if (!this.#received && chunk[0] !== 0) this.#refused(chunk);
      this.#received = true;
      this.#scanner.push(chunk);
    } catch (error) {
      this.#fail(incomprehensible(this.address, error));
    }
  }

  /** A refusal before the first request is read is a line of text: the dialect is not known yet. */
  #refused(chunk: Buffer): void {
    if (chunk[0] === TLS_ALERT)
      throw new Error("it speaks TLS: name who signed its certificate with --tls-ca");
    const [line = ""] = chunk.toString("utf8", 0, UPLOAD_CHUNK_BYTES).split("\n");
    const response = decodeResponse(line);
    if ("Err" in response) this.#fail(refused(response));
  }

  /** One whole frame: an answer, or an item of a stream. */
  #take(body: Buffer): void {
    const head = this.#waiting[0];
    if (head === undefined) {
      if (this.#follow === undefined) throw new Error("an answer came without a request");
      this.#follow.push(body);
      return;
    }
    const response = decodeResponse(body.toString());
    const { second } = head;
    if ("Ok" in response && second !== undefined) this.#waiting[0] = second;
    else this.#waiting.shift();
    this.#arm();
    if ("Ok" in response) head.resolve(response.Ok);
    else head.reject(refused(response));
  }

  #lost(error: unknown): void {
    if (error === undefined && this.#waiting.length === 0 && this.#scanner.pendingBytes === 0) {
      this.#follow?.end();
    }
    // Whether it trusts our certificate, a daemon says by closing the connection, after the handshake.
    const isRefused = this.#identity.tls?.cert !== undefined && !this.#received;
    const reason = isRefused ? untrusted : unreachable;
    this.#fail(reason(this.address, error ?? new Error("the connection was closed")));
  }

  #fail(error: OrchestratorError, end: () => void = () => this.#socket?.terminate()): void {
    if (this.#ended !== undefined) return;
    this.#ended = error;
    this.#cancelTimer();
    this.#unsent.length = 0;
    for (const waiting of this.#waiting.splice(0)) waiting.reject(error);
    this.#drained?.resolve(); // whoever sends finds `#ended`
    this.#follow?.end(error);
    end();
  }
}

/** An answer to come, for whoever waits for it and for the connection. */
interface Awaited {
  readonly promise: Promise<unknown>;
  readonly waiting: Waiting;
}

function awaited(deadlineMs: number, isLong: boolean, second?: Waiting): Awaited {
  const { promise, resolve, reject } = Promise.withResolvers<unknown>();
  return { promise, waiting: { deadlineMs, isLong, resolve, reject, second } };
}
