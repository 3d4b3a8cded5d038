// A Mesos master, with as many agents as MESOS_NUM_SLAVES says, out of the library of Mesos' Python package.
//
// A driver of the scheduler API whose master is "local" starts them in its own process. This one is never started itself:
// frameworks come by HTTP. It must never need Mesos' headers, which the package does not have: classes are declared with
// room to spare, and only what is called has its true name.

#include <string>
#include <unistd.h>

namespace google { namespace protobuf {
class MessageLite { public: bool ParseFromString(const std::string& bytes); };
}}

namespace mesos {
class Scheduler { void* callbacks[64] = {}; };
class FrameworkInfo { char room[8192]; public: FrameworkInfo(); };
class MesosSchedulerDriver {
    char room[131072];
public:
    MesosSchedulerDriver(Scheduler* scheduler, const FrameworkInfo& framework, const std::string& master);
};
}

// What the library takes the address of when it is loaded: Python's objects and OpenSSL's functions. All else that it would
// have of them is looked up at the first call, which never comes; if it did, the linker would name it and end us.
extern "C" {
void* PyExc_Exception[8];
void* PyExc_TypeError[8];
void* _Py_NoneStruct[8];
void RSA_free() {}
void X509_NAME_free() {}
void GENERAL_NAME_free() {}
void PEM_read_bio_RSA_PUBKEY() {}
void PEM_read_bio_RSAPrivateKey() {}
}

int main() {
    static mesos::Scheduler scheduler;
    static mesos::FrameworkInfo framework;
    // The fields that are required, in protobuf's wire format: no user, a name of one letter.
    const std::string required("\x0a\x00\x12\x01-", 5);
    if (!reinterpret_cast<google::protobuf::MessageLite&>(framework).ParseFromString(required)) return 1;
    static mesos::MesosSchedulerDriver driver(&scheduler, framework, "local");
    for (;;) pause();
}
