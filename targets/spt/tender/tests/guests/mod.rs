//! Guests of a few instructions each, assembled into this test program and copied from it into images.
//!
//! A guest starts with RDI at its `struct spt_boot_info`, and may move within its page only by relative addresses.

use fogbow_tender::machine_code;

machine_code! {
    /// Ends with status 42.
    exits { "mov edi, 42" "mov eax, 231" "syscall" }

    /// Writes its boot information, 40 bytes, then what is from the manifest to the command line's end, and its stack pointer.
    tells_what_it_was_given {
        "mov r12, rdi"
        "mov rsi, rdi" "mov edi, 1" "mov edx, 40" "mov eax, 1" "syscall"
        "mov rsi, [r12 + 24]" "mov edi, 1" "mov edx, 4096" "mov eax, 1" "syscall"
        "push rsp" "mov rsi, rsp" "mov edi, 1" "mov edx, 8" "mov eax, 1" "syscall"
        "xor edi, edi" "mov eax, 231" "syscall"
    }

    /// Asks who it is (getpid), which it may not.
    calls_what_is_forbidden { "mov eax, 39" "syscall" "mov edi, 0" "mov eax, 231" "syscall" }

    /// Reads standard input, which it may not.
    reads_standard_input { "xor edi, edi" "mov rsi, rsp" "sub rsi, 64" "mov edx, 1" "xor eax, eax" "syscall" "mov eax, 231" "syscall" }

    /// Asks for memory that is executable, which it may not.
    maps_memory { "mov eax, 9" "mov edi, 0" "mov esi, 4096" "mov edx, 7" "mov r10d, 0x22" "mov r8, -1" "xor r9d, r9d" "syscall" }

    /// Reads address 8.
    reads_page_zero { "mov rax, [8]" }

    /// Writes to its own code.
    writes_code { "lea rax, [rip]" "mov byte ptr [rax], 0" }

    /// Jumps into its data segment, one page further.
    executes_data { "lea rax, [rip]" "and rax, -4096" "add rax, 4096" "jmp rax" }

    /// Puts its stack out of reach and pushes.
    overflows_its_stack { "mov rsp, 0x8000" "push rax" }

    /// An instruction that does not exist.
    runs_no_instruction { "ud2" }

    /// Changes its thread pointer, then faults.
    faults_with_another_thread_pointer { "mov edi, 0x1002" "mov esi, 0x1234" "mov eax, 158" "syscall" "mov rax, [8]" }

    /// Waits for a deadline that is over, and ends with the count of events.
    waits {
        "mov r12, rdi"
        "sub rsp, 72"
        "mov qword ptr [rsp + 16], 0" "mov qword ptr [rsp + 24], 1"
        "mov qword ptr [rsp], 0" "mov qword ptr [rsp + 8], 0"
        "mov edi, [r12 + 36]" "mov esi, 1" "mov rdx, rsp" "xor r10d, r10d" "mov eax, 286" "syscall"
        "mov edi, [r12 + 32]" "mov rsi, rsp" "mov edx, 4" "mov r10, -1" "xor r8d, r8d" "xor r9d, r9d" "mov eax, 281" "syscall"
        // What the event is of: 0xfffffffe, the timer.
        "mov edi, eax" "cmp dword ptr [rsp + 4], -2" "je 2f" "mov edi, 99" "2: mov eax, 231" "syscall"
    }

    /// Waits for an event that never comes.
    waits_for_ever {
        "mov edi, [rdi + 32]" "mov rsi, rsp" "sub rsi, 64" "mov edx, 1" "mov r10, -1" "xor r8d, r8d" "xor r9d, r9d" "mov eax, 281" "syscall"
    }

    /// Waits for its first device and reads from it; ends with status 7 if the event is of handle 1 and the frame longer than 13 bytes.
    receives_a_frame {
        "mov r12, rdi" "mov r13, [r12 + 24]" "sub rsp, 4104"
        "mov edi, [r12 + 32]" "mov rsi, rsp" "mov edx, 1" "mov r10, -1" "xor r8d, r8d" "xor r9d, r9d" "mov eax, 281" "syscall"
        "cmp dword ptr [rsp + 4], 1" "jne 3f"
        "mov edi, [r13 + 200]" "mov rsi, rsp" "mov edx, 4096" "xor eax, eax" "syscall"
        "cmp rax, 14" "jl 3f"
        "mov edi, 7" "mov eax, 231" "syscall"
        "3: mov edi, 99" "mov eax, 231" "syscall"
    }

    /// Writes 512 bytes of itself to the first sector of its first device, reads the last sector, and ends with that sector's first byte.
    uses_its_disk {
        "mov r13, [rdi + 24]" "sub rsp, 520"
        "mov edi, [r13 + 200]" "lea rsi, [rip]" "and rsi, -4096" "mov edx, 512" "xor r10d, r10d" "mov eax, 18" "syscall"
        "mov edi, [r13 + 200]" "mov rsi, rsp" "mov edx, 512" "mov r10, [r13 + 184]" "sub r10, 512" "mov eax, 17" "syscall"
        "movzx edi, byte ptr [rsp]" "mov eax, 231" "syscall"
    }

    /// Writes the sector after the last of its first device, which it may not.
    writes_beyond_its_disk {
        "mov r13, [rdi + 24]"
        "mov edi, [r13 + 200]" "lea rsi, [rip]" "and rsi, -4096" "mov edx, 512" "mov r10, [r13 + 184]" "mov eax, 18" "syscall"
        "xor edi, edi" "mov eax, 231" "syscall"
    }
}
