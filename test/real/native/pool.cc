// Counts words on a pool of threads that are joined at the end. Everything that C++ code of the real
// world has: thread-locals with destructors, a locale of its own, a regular expression, streams,
// exceptions, shared pointers, and statics of templates and inline functions.
#include <condition_variable>
#include <functional>
#include <future>
#include <iostream>
#include <locale>
#include <map>
#include <memory>
#include <mutex>
#include <queue>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "build.h"

DESCRIBE("pool");

namespace {

struct Dots : std::numpunct<char> {
  char do_thousands_sep() const override { return '.'; }
  std::string do_grouping() const override { return "\3"; }
};

// As many threads share it, as many copies there are: each is destroyed with its thread.
thread_local std::vector<std::string> scratch;

class Pool {
 public:
  explicit Pool(unsigned size) {
    for (unsigned index = 0; index < size; index++) threads_.emplace_back([this] { run(); });
  }
  ~Pool() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      closed_ = true;
    }
    wake_.notify_all();
    for (std::thread &thread : threads_) thread.join();
  }
  template <typename Result>
  std::future<Result> submit(std::function<Result()> work) {
    auto task = std::make_shared<std::packaged_task<Result()>>(std::move(work));
    auto result = task->get_future();
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      queue_.push([task] { (*task)(); });
    }
    wake_.notify_one();
    return result;
  }

 private:
  void run() {
    for (;;) {
      std::function<void()> work;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [this] { return closed_ || !queue_.empty(); });
        if (queue_.empty()) return;
        work = std::move(queue_.front());
        queue_.pop();
      }
      work();
    }
  }
  std::mutex mutex_;
  std::condition_variable wake_;
  std::queue<std::function<void()>> queue_;
  std::vector<std::thread> threads_;
  bool closed_ = false;
};

std::unique_ptr<Pool> pool;

// Words are cut at spaces, so a chunk ends where one does.
std::map<std::string, size_t> count(const std::string &text) {
  std::istringstream stream(text);
  std::string word;
  std::map<std::string, size_t> counts;
  scratch.clear();
  while (stream >> word) scratch.push_back(word);
  for (const std::string &each : scratch) counts[each]++;
  return counts;
}

// A static of a template: with GCC a unique symbol, of which a process has one unless the host sees to it.
template <typename T>
struct Build {
  static std::string &text() {
    static std::string value = TEXT(BUILD);
    return value;
  }
};

std::string serve(const std::string &text) {
  constexpr size_t kChunks = 4;
  std::vector<std::future<std::map<std::string, size_t>>> parts;
  size_t from = 0;
  for (size_t chunk = 1; chunk <= kChunks; chunk++) {
    size_t to = chunk == kChunks ? text.size() : text.find(' ', text.size() * chunk / kChunks);
    to = std::max(from, std::min(to, text.size()));
    const std::string piece = text.substr(from, to - from);
    parts.push_back(pool->submit<std::map<std::string, size_t>>([piece] { return count(piece); }));
    from = to;
  }
  std::map<std::string, size_t> counts;
  for (auto &part : parts) {
    for (const auto &entry : part.get()) counts[entry.first] += entry.second;
  }
  // An exception that crosses threads.
  auto thrown = pool->submit<int>([]() -> int { throw std::out_of_range("caught"); });
  std::string caught;
  try {
    thrown.get();
  } catch (const std::out_of_range &error) {
    caught = error.what();
  }
  std::ostringstream out;
  out.imbue(std::locale(std::locale::classic(), new Dots));
  static const std::regex shape("^[a-z]+$");
  size_t matching = 0;
  for (const auto &entry : counts) {
    if (std::regex_match(entry.first, shape)) matching++;
    out << entry.first << ' ' << entry.second << '\n';
  }
  out << matching << " of " << counts.size() << " match; " << text.size() << " bytes; " << caught << '\n';
  return out.str();
}

}  // namespace

int32_t handler_init(const handler_context *, handler_response *res) {
  if (Build<int>::text() != TEXT(BUILD)) {
    return handler_fail(res, 2, ("static of build " + Build<int>::text()).c_str());
  }
  // In one piece: lane processes and the child of a pre-flight print to the same place.
  std::cerr << std::string("pool ") + TEXT(BUILD) + " starts\n";
  pool = std::unique_ptr<Pool>(new Pool(3));
  return HANDLER_OK;
}

void handler_shutdown() { pool.reset(); }

int32_t handler_entry(const handler_context *, const handler_request *req, handler_response *res) {
  try {
    const std::string reply =
        serve(std::string(reinterpret_cast<const char *>(req->data), req->length));
    return handler_reply(res, reply.data(), reply.size());
  } catch (const std::exception &error) {
    return handler_fail(res, 1, error.what());
  }
}
