// Node's parser. Writes a line for each request it reads and for each thing that it could not read.
import http from 'node:http';
import { appendFileSync } from 'node:fs';

const [port, log] = process.argv.slice(2);
const server = http.createServer((request, response) => {
  appendFileSync(log, `200 ${request.method} ${request.url} HTTP/${request.httpVersion}\n`);
  request.resume();
  request.on('end', () => {
    response.setHeader('X-Seen', encodeURI(request.url));
    response.end('hello\n');
  });
});
server.keepAliveTimeout = 300_000;
server.on('clientError', (error, socket) => {
  // A connection that breaks off in a body is the proxy's way to give up a request.
  if (!['ECONNRESET', 'HPE_INVALID_EOF_STATE'].includes(error.code)) {
    appendFileSync(log, `400 ${error.code} ${JSON.stringify(error.rawPacket?.toString('latin1'))}\n`);
  }
  socket.destroy();
});
server.listen(Number(port), '127.0.0.1');
