/*
 * solo5.lib.so: the functions of Solo5 0.6's interface as services of Genode 26.02.
 *
 * The image is the component's binary. It exports its manifest and `solo5_app_main`; this library is what Genode starts. It opens a session for each
 * device of the manifest, gives the image what RAM is left as its heap, and calls it. All of it happens in the one thread of the entrypoint, which serves
 * signals while the image waits, and only then.
 *
 * What the image passes is checked where a mistake would reach beyond the image: names, handles, the range of a transfer. An image shares its address space
 * with this library, so these checks tell of errors; they do not keep an image from anything.
 *
 * Sources: `solo5.h` and `mft_abi.h` of Solo5 0.6.9 for the interface; the headers and the manual of Genode 26.02 for the rest.
 */

/*
 * Part of Fogbow, under its licence: MIT or Apache-2.0, at your choice. Genode's headers are under the GNU AGPL version 3 with a linking exception.
 */

#include <base/allocator_avl.h>
#include <base/attached_ram_dataspace.h>
#include <base/attached_rom_dataspace.h>
#include <base/component.h>
#include <base/heap.h>
#include <base/sleep.h>
#include <block_session/connection.h>
#include <nic/packet_allocator.h>
#include <nic_session/connection.h>
#include <rtc_session/connection.h>
#include <timer_session/connection.h>
#include <util/reconstructible.h>

namespace Solo5 {

	using namespace Genode;

	/* solo5_result_t */
	enum Result : int { OK = 0, AGAIN = 1, INVALID = 2, UNSPECIFIED = 3 };

	struct Start_info { char const *cmdline; addr_t heap_start; size_t heap_size; };

	struct Net_info { uint8_t mac[6]; size_t mtu; };

	struct Block_info { uint64_t capacity; uint64_t block_size; };

	/* struct mft_entry */
	struct Entry
	{
		enum Type : uint32_t { BLOCK = 1, NET = 2 };

		char     name[68];
		uint32_t type;
		uint8_t  properties[16];
		uint8_t  host[8];
		uint8_t  attached;
		uint8_t  padding[7];
	};

	/* struct mft1_note, with the note's header spelt out */
	struct Note
	{
		uint32_t name_size, descriptor_size, type;
		char     name[8];
		uint32_t padding;
		uint32_t version, entries;
		Entry    entry[];
	};

	static_assert(sizeof(Entry) == 104);
	static_assert(__builtin_offsetof(Note, version) == 24);

	class Nic_device;
	class Disk;
	class Platform;

	/* MFT_MAX_ENTRIES */
	static constexpr unsigned MAX_ENTRIES = 64;

	/* room that the session of a network device has for packets, each way */
	static constexpr size_t NET_BUFFER = 128*Nic::Packet_allocator::DEFAULT_PACKET_SIZE;

	/* room for the data of one block request; the largest that an image makes is half of it */
	static constexpr size_t BLOCK_BUFFER = 128*1024;

	/* RAM that stays with the library: for sessions and metadata allocated later on */
	static constexpr size_t RESERVED = 512*1024;
}


extern "C" Solo5::Note const __solo5_mft1_note;
extern "C" int solo5_app_main(Solo5::Start_info const *);


/*
 * A network device: a Nic session. Packets are copied, once each way.
 */
class Solo5::Nic_device : Noncopyable
{
	private:

		Nic::Packet_allocator   _packets;
		Nic::Connection         _nic;
		Io_signal_handler<Nic_device>  _packet_handler;
		bool                    _signalled = false;

		void _handle_packet() { _signalled = true; }

	public:

		Nic_device(Env &env, Allocator &alloc, char const *label)
		:
			_packets(&alloc),
			_nic(env, &_packets, NET_BUFFER, NET_BUFFER, label),
			_packet_handler(env.ep(), *this, &Nic_device::_handle_packet)
		{
			_nic.rx_channel()->sigh_packet_avail(_packet_handler);
			/* room for acknowledgements is as good a reason to look again */
			_nic.rx_channel()->sigh_ready_to_ack(_packet_handler);
		}

		/* whether packets have arrived since this was asked last */
		bool take_signal()
		{
			bool const signalled = _signalled;
			_signalled = false;
			return signalled;
		}

		bool signalled() const { return _signalled; }

		Net_info info()
		{
			Net_info result { };
			Nic::Mac_address const mac = _nic.mac_address();
			memcpy(result.mac, mac.addr, sizeof(result.mac));
			/* a Nic session does not tell its MTU: Ethernet's */
			result.mtu = 1500;
			return result;
		}

		Result write(uint8_t const *frame, size_t size)
		{
			auto &tx = *_nic.tx();

			while (tx.ack_avail())
				tx.release_packet(tx.try_get_acked_packet());

			if (size == 0 || size > Nic::Packet_allocator::OFFSET_PACKET_SIZE)
				return INVALID;

			if (!tx.ready_to_submit())
				return AGAIN;

			return tx.alloc_packet_attempt(size).convert<Result>(
				[&] (Packet_descriptor const &packet) {
					memcpy(tx.packet_content(packet), frame, size);
					tx.try_submit_packet(packet);
					tx.wakeup();
					return OK; },
				[&] (auto) { return AGAIN; });
		}

		Result read(uint8_t *into, size_t size, size_t &length)
		{
			auto &rx = *_nic.rx();

			while (rx.packet_avail() && rx.ready_to_ack()) {

				Packet_descriptor const packet = rx.try_get_packet();

				/*
				 * Descriptors are the server's: one that lies outside of the buffer is no packet. What is behind it
				 * is looked at now, as nothing signals it again.
				 */
				bool const valid = packet.size() && rx.packet_valid(packet);
				if (valid) {
					length = min(size, packet.size());
					memcpy(into, rx.packet_content(packet), length);
				}
				rx.try_ack_packet(packet);
				rx.wakeup();
				if (valid)
					return OK;
			}
			return AGAIN;
		}
};


/*
 * A block device: a Block session, one request at a time.
 */
class Solo5::Disk : Noncopyable
{
	private:

		using Packet = Block::Packet_descriptor;

		Env                       &_env;
		Allocator_avl              _packets;
		Block::Connection<>        _block;
		Io_signal_handler<Disk>    _handler;
		Block::Session::Info const _info = _block.info();

		/* the wait below looks for itself */
		void _handle() { }

		bool _in_range(uint64_t offset, size_t size) const
		{
			uint64_t const block_size = _info.block_size;
			uint64_t const capacity   = _info.block_count*block_size;

			return size && !(offset % block_size) && !(size % block_size)
			    && size <= capacity && offset <= capacity - size;
		}

		Result _request(Packet::Opcode opcode, uint64_t offset, size_t size, auto const &before, auto const &after)
		{
			if (!_in_range(offset, size))
				return INVALID;

			auto &tx = *_block.tx();

			return tx.alloc_packet_attempt(size, _info.align_log2).template convert<Result>(
				[&] (Packet const &payload) {
					Packet packet(payload, opcode, offset / _info.block_size, size / _info.block_size);
					before(tx.packet_content(packet));
					tx.try_submit_packet(packet);
					tx.wakeup();

					/* there is no other request, so the next acknowledgement is this one's */
					while (!tx.ack_avail())
						_env.ep().wait_and_dispatch_one_io_signal();

					bool const ok = tx.try_get_acked_packet().succeeded();
					if (ok)
						after(tx.packet_content(packet));
					tx.release_packet(packet);
					return ok ? OK : UNSPECIFIED; },
				[&] (auto) { return INVALID; });
		}

	public:

		Disk(Env &env, Allocator &alloc, char const *label)
		:
			_env(env), _packets(&alloc), _block(env, &_packets, BLOCK_BUFFER, label),
			_handler(env.ep(), *this, &Disk::_handle)
		{
			_block.sigh(_handler);
		}

		Block_info info() const
		{
			return { .capacity = _info.block_count*_info.block_size, .block_size = _info.block_size };
		}

		Result read(uint64_t offset, uint8_t *into, size_t size)
		{
			return _request(Packet::READ, offset, size,
				[&] (char *) { },
				[&] (char const *content) { memcpy(into, content, size); });
		}

		Result write(uint64_t offset, uint8_t const *data, size_t size)
		{
			if (!_info.writeable)
				return UNSPECIFIED;

			return _request(Packet::WRITE, offset, size,
				[&] (char *content) { memcpy(content, data, size); },
				[&] (char const *) { });
		}
};


class Solo5::Platform : Noncopyable
{
	private:

		Env                              &_env;
		Heap                              _heap { _env.ram(), _env.rm() };
		Timer::Connection                 _timer { _env, "solo5" };
		Timer::One_shot_timeout<Platform> _timeout { _timer, *this, &Platform::_handle_timeout };
		Constructible<Rtc::Connection>    _rtc { };
		Nic_device                       *_nets[MAX_ENTRIES] { };
		Disk                             *_disks[MAX_ENTRIES] { };

		/* nanoseconds since 1970 at the timer's beginning, once asked */
		uint64_t _epoch = 0;

		Platform(Platform const &) = delete;
		Platform &operator = (Platform const &) = delete;

		void _handle_timeout(Duration) { }

		uint64_t _microseconds() { return _timer.curr_time().trunc_to_plain_us().value; }

		/* days from 1970-01-01 to a date of the Gregorian calendar, counted in years that begin in March */
		static uint64_t _days(unsigned year, unsigned month, unsigned day)
		{
			uint64_t const y = month > 2 ? year : year - 1;
			uint64_t const m = month > 2 ? month - 3 : month + 9;
			return 365*y + y/4 - y/100 + y/400 + (153*m + 2)/5 + day - 719469;
		}

		static uint64_t _nanoseconds(Rtc::Timestamp const &time)
		{
			uint64_t const seconds = 86400*_days(time.year, time.month, time.day) + 3600*time.hour + 60*time.minute + time.second;
			return (seconds*1000000 + time.microsecond)*1000;
		}

		/* the network devices whose packets have arrived since this was asked last, a bit for each handle */
		uint64_t _take_ready()
		{
			uint64_t ready = 0;
			for (unsigned handle = 0; handle < MAX_ENTRIES; handle++)
				if (_nets[handle] && _nets[handle]->take_signal())
					ready |= 1ull << handle;
			return ready;
		}

		bool _any_ready() const
		{
			for (Nic_device const *net : _nets)
				if (net && net->signalled())
					return true;
			return false;
		}

	public:

		Platform(Env &env, Note const &manifest) : _env(env)
		{
			/* entry 0 is reserved and no device */
			for (unsigned handle = 1; handle < manifest.entries; handle++) {
				Entry const &entry = manifest.entry[handle];
				if (entry.type == Entry::NET)   _nets[handle]  = new (_heap) Nic_device(env, _heap, entry.name);
				if (entry.type == Entry::BLOCK) _disks[handle] = new (_heap) Disk(env, _heap, entry.name);
			}
		}

		Nic_device *net(uint64_t handle) { return handle < MAX_ENTRIES ? _nets[handle]  : nullptr; }
		Disk *disk(uint64_t handle) { return handle < MAX_ENTRIES ? _disks[handle] : nullptr; }

		/* the handle of a device of the manifest, 0 where there is none */
		static unsigned handle(char const *name, Entry::Type type)
		{
			Note const &manifest = __solo5_mft1_note;
			for (unsigned handle = 1; handle < manifest.entries; handle++)
				if (manifest.entry[handle].type == type && strcmp(manifest.entry[handle].name, name) == 0)
					return handle;
			return 0;
		}

		uint64_t monotonic() { return _microseconds()*1000; }

		uint64_t wall()
		{
			if (!_rtc.constructed()) {
				_rtc.construct(_env);
				_epoch = _nanoseconds(_rtc->current_time()) - monotonic();
			}
			return _epoch + monotonic();
		}

		uint64_t yield(uint64_t deadline)
		{
			/* what has arrived is seen even where there is no time to wait */
			while (_env.ep().dispatch_pending_io_signal());

			uint64_t const now = _microseconds(), end = deadline / 1000;

			if (!_any_ready() && end > now) {
				_timeout.schedule(Microseconds { end - now });
				while (!_any_ready() && _timeout.scheduled())
					_env.ep().wait_and_dispatch_one_io_signal();
				_timeout.discard();
			}
			return _take_ready();
		}

		[[noreturn]] void exit(int status)
		{
			_env.parent().exit(status);
			sleep_forever();
		}
};


static Solo5::Platform *platform_ptr;

static Solo5::Platform &platform() { return *platform_ptr; }


extern "C" {

	using namespace Solo5;

	void solo5_exit(int status) { platform().exit(status); }

	void solo5_abort() { platform().exit(255); }

	uint64_t solo5_clock_monotonic() { return platform().monotonic(); }

	uint64_t solo5_clock_wall() { return platform().wall(); }

	void solo5_yield(uint64_t deadline, uint64_t *ready_set)
	{
		uint64_t const ready = platform().yield(deadline);
		if (ready_set)
			*ready_set = ready;
	}

	void solo5_console_write(char const *text, size_t size)
	{
		/* a call is a line */
		while (size && (text[size - 1] == '\n' || text[size - 1] == '\0'))
			size--;
		log(Cstring(text, size));
	}

	int solo5_net_acquire(char const *name, uint64_t *handle, Net_info *info)
	{
		*handle = Platform::handle(name, Entry::NET);
		Nic_device *net = platform().net(*handle);
		if (!net)
			return UNSPECIFIED;
		*info = net->info();
		return OK;
	}

	int solo5_net_write(uint64_t handle, uint8_t const *frame, size_t size)
	{
		Nic_device *net = platform().net(handle);
		return net ? net->write(frame, size) : INVALID;
	}

	int solo5_net_read(uint64_t handle, uint8_t *into, size_t size, size_t *length)
	{
		Nic_device *net = platform().net(handle);
		return net ? net->read(into, size, *length) : INVALID;
	}

	int solo5_block_acquire(char const *name, uint64_t *handle, Block_info *info)
	{
		*handle = Platform::handle(name, Entry::BLOCK);
		Disk *disk = platform().disk(*handle);
		if (!disk)
			return UNSPECIFIED;
		*info = disk->info();
		return OK;
	}

	int solo5_block_write(uint64_t handle, uint64_t offset, uint8_t const *data, size_t size)
	{
		Disk *disk = platform().disk(handle);
		return disk ? disk->write(offset, data, size) : INVALID;
	}

	int solo5_block_read(uint64_t handle, uint64_t offset, uint8_t *into, size_t size)
	{
		Disk *disk = platform().disk(handle);
		return disk ? disk->read(offset, into, size) : INVALID;
	}

	/* the thread pointer is Genode's */
	int solo5_set_tls_base(addr_t) { return UNSPECIFIED; }
}


void Component::construct(Genode::Env &env)
{
	using namespace Solo5;

	Note const &manifest = __solo5_mft1_note;
	bool const valid = manifest.type == 0x3154464d && manifest.version == 1 && manifest.entries >= 1 && manifest.entries <= MAX_ENTRIES;
	if (!valid) {
		error("the image's manifest is not version 1 of Solo5's");
		env.parent().exit(1);
		return;
	}

	using Cmdline = String<8192>;
	static Cmdline cmdline { };
	{
		Attached_rom_dataspace config(env, "config");
		cmdline = config.node().attribute_value("cmdline", Cmdline());
	}

	static Platform platform(env, manifest);
	platform_ptr = &platform;

	size_t const available = env.pd().avail_ram().value;
	if (available <= 2*RESERVED) {
		error("too little RAM for the image's heap: ", available, " bytes are left");
		env.parent().exit(1);
		return;
	}
	static Attached_ram_dataspace heap(env.ram(), env.rm(), available - RESERVED);

	static Start_info const start { .cmdline = cmdline.string(), .heap_start = (addr_t)heap.local_addr<char>(), .heap_size = heap.size() };

	platform.exit(solo5_app_main(&start));
}


Genode::size_t Component::stack_size() { return 512*1024; }
