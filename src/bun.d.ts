// What Bun 1.4.5 has and bun-types does not declare.

declare module "bun" {
  interface Socket {
    /** The file descriptor; -1 when it is closed. */
    readonly fd: number;
  }

  /** Takes over a descriptor. */
  function connect<Data = undefined>(options: FdConnectOptions<Data>): Promise<Socket<Data>>;

  interface FdConnectOptions<Data = undefined> extends SocketOptions<Data> {
    readonly fd: number;
  }
}

export {};
