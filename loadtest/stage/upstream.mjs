// A small API behind the proxy. It says what reached it, and counts what must never reach it: requests with an expired
// token, requests below /api/ without one, and forged ones (scripts send what must be refused to /api/forged).
import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import { send, text } from './http.mjs';

const HIDDEN = ['authorization', 'cookie'];
const WS_GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';

export class Upstream {
  constructor(port) {
    this.sabotage = '';
    this.sockets = new Set();
    this.reset();
    const server = createServer((asked, answer) => this.serve(asked, answer).catch((error) => {
      console.error(error);
      send(answer, 500, {});
    }));
    // Longer than any client keeps one: else a request and the end of an idle connection may meet.
    server.keepAliveTimeout = 600_000;
    server.on('upgrade', (asked, socket) => this.upgrade(asked, socket));
    server.listen(port, '127.0.0.1');
  }

  reset() {
    this.users = new Set();
    this.count = { requests: 0, expired: 0, latest_ms: 0, absent: 0, forged: 0, unsafe: 0, upgrades: 0 };
  }

  counters() {
    return { ...this.count, users: this.users.size, sockets: this.sockets.size };
  }

  async serve(asked, answer) {
    const url = new URL(asked.url, 'http://upstream');
    const body = await text(asked);
    const claims = this.judge(asked, url.pathname);
    if (asked.method !== 'GET' && asked.method !== 'HEAD') this.count.unsafe += 1;
    if (this.sabotage === 'api_steady' && Math.random() < 0.05) return send(answer, 500, {});
    // Long enough to be under way when something happens.
    if (url.pathname === '/api/slow') await new Promise((done) => setTimeout(done, 400));
    if (url.pathname === '/') {
      answer.writeHead(200, { 'content-type': 'text/html' });
      return answer.end('<!doctype html><title>Load test</title><p>A page.');
    }
    const headers = Object.entries(asked.headers).map(([name, value]) => [name, HIDDEN.includes(name) ? '(hidden)' : String(value)]);
    const user = claims?.preferred_username ?? null;
    send(answer, 200, { method: asked.method, path: url.pathname, body_bytes: body.length, authenticated: Boolean(claims), user, headers });
  }

  /** The claims of the token. The API would verify the signature; here it is about what arrives. */
  judge(asked, path) {
    this.count.requests += 1;
    if (path === '/api/forged') this.count.forged += 1;
    const token = /^Bearer (.+)$/.exec(asked.headers.authorization ?? '')?.[1];
    if (!token) {
      if (path.startsWith('/api/') || path.startsWith('/ws/')) this.count.absent += 1;
      return null;
    }
    const claims = JSON.parse(Buffer.from(token.split('.')[1], 'base64url').toString());
    if (claims.preferred_username) this.users.add(claims.preferred_username);
    const late = Date.now() - claims.exp * 1000;
    if (late >= 0) {
      this.count.expired += 1;
      this.count.latest_ms = Math.max(this.count.latest_ms, late);
    }
    return claims;
  }

  /** A WebSocket that sends back what it gets. Frames of a test are short: one header, less than 126 bytes. */
  upgrade(asked, socket) {
    this.count.upgrades += 1;
    this.judge(asked, new URL(asked.url, 'http://upstream').pathname);
    const accept = createHash('sha1').update(asked.headers['sec-websocket-key'] + WS_GUID).digest('base64');
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
    this.sockets.add(socket);
    let rest = Buffer.alloc(0);
    socket.on('data', (data) => {
      rest = Buffer.concat([rest, data]);
      while (rest.length >= 6) {
        const length = rest[1] & 0x7f;
        if (rest.length < 6 + length) break;
        const mask = rest.subarray(2, 6);
        const body = Buffer.from(rest.subarray(6, 6 + length).map((byte, place) => byte ^ mask[place % 4]));
        const opcode = rest[0] & 0x0f;
        rest = rest.subarray(6 + length);
        if (opcode === 8) return socket.end(Buffer.concat([Buffer.from([0x88, body.length]), body]));
        const answer = opcode === 9 ? 0x8a : 0x80 | opcode;
        socket.write(Buffer.concat([Buffer.from([answer, body.length]), body]));
      }
    });
    socket.on('error', () => {});
    // Node leaves an upgraded socket half open.
    socket.on('end', () => socket.end());
    socket.on('close', () => this.sockets.delete(socket));
    if (this.sabotage === 'websocket') setTimeout(() => socket.destroy(), 1500);
  }
}
