// c10d's key-value stores, through which processes find each other.
#include "distributed.h"

#include <torch/csrc/distributed/c10d/FileStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <dirent.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <system_error>

using fulgurite::Error;
using fulgurite::protect;
using fulgurite::Text;

namespace {

std::vector<std::string> strings(const Text *texts, size_t count) { return {texts, texts + count}; }

// Whether `host` leads to IPv4 only.
bool is_only_ipv4(const std::string &host) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo *found = nullptr;
  if (getaddrinfo(host.c_str(), nullptr, &hints, &found) != 0) return false;
  bool only = found != nullptr;
  for (const addrinfo *at = found; at != nullptr; at = at->ai_next) only = only && at->ai_family == AF_INET;
  freeaddrinfo(found);
  return only;
}

// A socket that listens at `port`, on all IPv4 addresses of this machine or on the one that only this machine reaches.
int listen_on_ipv4(uint16_t port, bool loopback) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0) throw std::system_error(errno, std::generic_category());
  const int yes = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(loopback ? INADDR_LOOPBACK : INADDR_ANY);
  address.sin_port = htons(port);
  if (bind(listener, reinterpret_cast<sockaddr *>(&address), sizeof address) != 0 || listen(listener, SOMAXCONN) != 0) {
    const std::system_error error(errno, std::generic_category(), errno == EADDRINUSE ? "EADDRINUSE" : "");
    close(listener);
    throw error;
  }
  return listener;
}

// The port at the other end of a connection; 0 for what is none.
uint16_t peer_port(int descriptor) {
  sockaddr_storage peer{};
  socklen_t len = sizeof peer;
  if (getpeername(descriptor, reinterpret_cast<sockaddr *>(&peer), &len) != 0) return 0;
  if (peer.ss_family == AF_INET) return ntohs(reinterpret_cast<sockaddr_in &>(peer).sin_port);
  if (peer.ss_family == AF_INET6) return ntohs(reinterpret_cast<sockaddr_in6 &>(peer).sin6_port);
  return 0;
}

}  // namespace

// c10d does not tell which sockets are its own, but their other ends have the store's port.
void fulgurite::end_silent_connections(uint16_t port) noexcept {
#ifdef __linux__
  DIR *folder = port == 0 ? nullptr : opendir("/proc/self/fd");
  if (folder == nullptr) return;
  while (const dirent *entry = readdir(folder)) {
    const int descriptor = std::atoi(entry->d_name);
    if (entry->d_name[0] == '.' || peer_port(descriptor) != port) continue;
    const int yes = 1, idle_s = 10, interval_s = 5, silence_ms = 30000;
    setsockopt(descriptor, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof yes);
    setsockopt(descriptor, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
    setsockopt(descriptor, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
    setsockopt(descriptor, IPPROTO_TCP, TCP_USER_TIMEOUT, &silence_ms, sizeof silence_ms);
  }
  closedir(folder);
#else
  (void)port;
#endif
}

extern "C" {

// `workers` is negative when it is not known how many processes there are. `port_out` is the port that the server has.
Error fulgurite_store_tcp(Text host, uint16_t port, bool is_server, bool loopback, int64_t workers,
                          bool wait_for_workers, int64_t timeout_ms, FulguriteStore **out, uint16_t *port_out) noexcept {
  return protect([&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = is_server;
    if (workers >= 0) options.numWorkers = static_cast<size_t>(workers);
    options.waitWorkers = wait_for_workers;
    options.timeout = std::chrono::milliseconds(timeout_ms);
    // The server looks up the name of everybody who connects. Through a socket for both versions of IP, 127.0.0.1 comes
    // as an address of IPv6 that no file knows, and without a good name server each takes five seconds.
    if (is_server && (loopback || is_only_ipv4(host))) options.masterListenFd = listen_on_ipv4(port, loopback);
    auto store = c10::make_intrusive<c10d::TCPStore>(host, options);
    *port_out = store->getPort();
    fulgurite::end_silent_connections(*port_out);
    *out = new FulguriteStore{std::move(store)};
  });
}

// `workers` is negative when it is not known how many processes there are.
Error fulgurite_store_file(Text path, int workers, int64_t timeout_ms, FulguriteStore **out) noexcept {
  return protect([&] {
    auto store = c10::make_intrusive<c10d::FileStore>(path, workers);
    store->setTimeout(std::chrono::milliseconds(timeout_ms));
    *out = new FulguriteStore{std::move(store)};
  });
}

Error fulgurite_store_prefixed(const FulguriteStore *store, Text prefix, FulguriteStore **out) noexcept {
  return protect(
      [&] { *out = new FulguriteStore{c10::make_intrusive<c10d::PrefixStore>(prefix, store->store)}; });
}

void fulgurite_store_free(FulguriteStore *store) noexcept {
  std::free(protect([&] { delete store; }));
}

Error fulgurite_store_set(const FulguriteStore *store, Text key, const uint8_t *value, size_t len) noexcept {
  return protect([&] { store->store->set(key, std::vector<uint8_t>(value, value + len)); });
}

// `out` is made with malloc, and Rust frees it.
Error fulgurite_store_get(const FulguriteStore *store, Text key, uint8_t **out, size_t *len) noexcept {
  return protect([&] {
    std::vector<uint8_t> value = store->store->get(key);
    // Never of no bytes, for which malloc may give nullptr.
    auto *copy = static_cast<uint8_t *>(std::malloc(value.size() + 1));
    if (copy == nullptr) throw std::bad_alloc();
    if (!value.empty()) std::memcpy(copy, value.data(), value.size());
    *out = copy;
    *len = value.size();
  });
}

void fulgurite_bytes_free(uint8_t *bytes) noexcept { std::free(bytes); }

Error fulgurite_store_check(const FulguriteStore *store, const Text *keys, size_t count, bool *out) noexcept {
  return protect([&] { *out = store->store->check(strings(keys, count)); });
}

Error fulgurite_store_add(const FulguriteStore *store, Text key, int64_t amount, int64_t *out) noexcept {
  return protect([&] { *out = store->store->add(key, amount); });
}

Error fulgurite_store_delete(const FulguriteStore *store, Text key, bool *out) noexcept {
  return protect([&] { *out = store->store->deleteKey(key); });
}

}  // extern "C"
